"""Lanes, joining, and jobs without steps, which need no DBOS."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from infra.database.engine import Database
from infra.errors import InvalidRequest
from infra.jobs import leases
from infra.jobs.admission import Capacity, Claimant, TenantLimits, claim
from infra.jobs.attempt import Attempt
from infra.jobs.definitions import Behaviour, Options, Registry, Resources
from infra.jobs.processes import this_process
from infra.jobs.queue import Jobs
from infra.jobs.worker import Worker

ROOT = Path(__file__).parents[3]
NOW = datetime(2026, 1, 1, tzinfo=UTC)
LANE = Behaviour(steps=False, lane="shelf/{shelf}")


def idle(attempt: Attempt) -> None:
    del attempt


def on_a_shelf(attempt: Attempt, shelf: str) -> None:
    del attempt, shelf


def take(
    database: Database,
    jobs: Jobs,
    worker_id: str = "w1",
    *,
    limits: TenantLimits = TenantLimits(),  # noqa: B008
) -> list[str]:
    capacity = Capacity(Resources(cpu=100), 100)
    who = Claimant(
        worker_id,
        tuple(jobs.registry.names),
        capacity,
        limits,
        forgetful=jobs.registry.forgetful,
        detached=jobs.registry.detached,
        widths=jobs.registry.widths,
    )
    with database.write() as connection:
        if worker_id not in {each.worker_id for each in leases.read_beats(connection)}:
            leases.register(connection, who, process=this_process(), now=NOW)
    return [each.job_id for each in claim(database, who, now=jobs.now())]


def test_jobs_of_one_lane_run_one_at_a_time_over_all_workers(
    jobs: Jobs, registry: Registry, database: Database
) -> None:
    registry.job("sort", behaviour=LANE)(on_a_shelf)
    first, second, other = (jobs.start("sort", {"shelf": name}).id for name in ("a", "a", "b"))
    assert jobs.get(first).lane == "shelf/a"
    assert take(database, jobs) == [first, other]
    assert take(database, jobs, "w2") == []
    with database.write() as connection:
        leases.leave(connection, "w1", now=jobs.now())
    assert take(database, jobs, "w2") == [first, other]
    assert jobs.get(second).state == "queued"


def test_of_a_wider_lane_as_many_run_at_a_time(
    jobs: Jobs, registry: Registry, database: Database
) -> None:
    wide = Behaviour(steps=False, lane="shelf/{shelf}", width=2)
    registry.job("sort", behaviour=wide)(on_a_shelf)
    registry.job("clean", behaviour=LANE)(on_a_shelf)
    first, second, third = (jobs.start("sort", {"shelf": "a"}).id for _ in range(3))
    alone = jobs.start("clean", {"shelf": "b"}).id
    assert take(database, jobs) == [first, second, alone]
    assert take(database, jobs, "w2") == []
    with database.write() as connection:
        leases.leave(connection, "w1", now=jobs.now())
    assert take(database, jobs, "w2") == [first, second, alone]
    assert jobs.get(third).state == "queued"


def test_a_cancelled_job_that_left_programs_running_waits_for_no_lane_limit_or_share(
    jobs: Jobs, registry: Registry, database: Database
) -> None:
    detached = Behaviour(steps=False, lane="shelf/{shelf}", detached=True)
    registry.job("train", resources=Resources(cpu=1), behaviour=detached)(on_a_shelf)
    left = jobs.start("train", {"shelf": "a"}).id
    assert take(database, jobs) == [left]
    with database.write() as connection:
        leases.leave(connection, "w1", now=jobs.now())
    ahead = [jobs.start("train", {"shelf": each}, options=Options(priority=1)) for each in "ab"]
    assert take(database, jobs, "w2") == [each.id for each in ahead]
    jobs.start("train", {"shelf": "c"}, options=Options(priority=1, resources=Resources(cpu=99)))
    limits = TenantLimits(default=2)
    assert take(database, jobs, "w2", limits=limits) == []
    assert jobs.cancel(left).state == "queued"
    assert take(database, jobs, "w2", limits=limits) == [left]
    assert jobs.get(ahead[0].id).state == "running"


def test_a_full_lane_does_not_hide_what_waits_behind_it(
    jobs: Jobs, registry: Registry, database: Database
) -> None:
    registry.job("sort", behaviour=LANE)(on_a_shelf)
    first = jobs.start("sort", {"shelf": "a"}).id
    assert take(database, jobs) == [first]
    for _ in range(150):
        jobs.start("sort", {"shelf": "a"})
    free = jobs.start("sort", {"shelf": "b"}).id
    assert take(database, jobs) == [free]


def test_a_lane_with_all_its_arguments_missing_is_none(jobs: Jobs, registry: Registry) -> None:
    registry.job("sort", behaviour=LANE)(on_a_shelf)
    assert jobs.enqueue("sort", {}).lane is None


def test_a_waiting_job_of_the_same_arguments_is_joined_and_a_running_one_is_not(
    jobs: Jobs, registry: Registry, database: Database
) -> None:
    behaviour = Behaviour(steps=False, lane="shelf/{shelf}", join=True)
    registry.job("drain", behaviour=behaviour)(on_a_shelf)
    first = jobs.start("drain", {"shelf": "a"}).id
    assert jobs.start("drain", {"shelf": "a"}).id == first
    assert jobs.start("drain", {"shelf": "b"}).id != first
    assert jobs.start("drain", {"shelf": "a"}, options=Options(tenant="other")).id != first
    taken = take(database, jobs)
    assert first in taken
    second = jobs.start("drain", {"shelf": "a"}).id
    assert second not in taken
    assert jobs.start("drain", {"shelf": "a"}).id == second


def test_who_joins_a_job_that_waits_for_its_next_try_has_it_tried_now(
    jobs: Jobs, registry: Registry, database: Database
) -> None:
    registry.job("drain", behaviour=Behaviour(steps=False, join=True))(idle)
    later = Options(at=datetime(2126, 1, 1, tzinfo=UTC))
    waiting = jobs.start("drain", options=later).id
    assert take(database, jobs) == []
    assert jobs.start("drain").id == waiting
    assert take(database, jobs) == [waiting]


def test_who_joins_a_job_holds_it_until_what_it_shall_do_is_committed(
    jobs: Jobs, registry: Registry, database: Database
) -> None:
    behaviour = Behaviour(steps=False, join=True)
    registry.job("drain", behaviour=behaviour)(idle)
    waiting = jobs.start("drain").id
    taken: list[str] = []
    thread = threading.Thread(target=lambda: taken.extend(take(database, jobs)))
    with database.write() as connection:
        assert jobs.start("drain", connection=connection).id == waiting
        thread.start()
        time.sleep(0.2)
        assert taken == []
    thread.join(20)
    assert (taken or take(database, jobs)) == [waiting]


def test_a_job_without_steps_runs_without_dbos_and_has_none(
    jobs: Jobs, registry: Registry, database: Database
) -> None:
    @registry.job("plain", behaviour=Behaviour(steps=False))
    def plain(attempt: Attempt, number: int) -> int:
        with pytest.raises(InvalidRequest, match="without steps"):
            attempt.step("one", lambda: 1)
        with pytest.raises(InvalidRequest, match="without steps"):
            attempt.transaction("two", lambda _: 2)
        attempt.progress(0.5, "half")
        return number + 1

    # Two in one process: DBOS would refuse the second.
    workers = [Worker(jobs, lazy=True) for _ in range(2)]
    for worker in workers:
        worker.start()
    ids = [jobs.start("plain", {"number": number}).id for number in range(5)]
    assert [jobs.wait(job_id).result for job_id in ids] == [1, 2, 3, 4, 5]
    assert all(worker.stop() for worker in workers)
    assert all(worker.stop() for worker in workers), "stopping twice is stopping once"


def test_a_lazy_worker_runs_jobs_with_steps_too(jobs: Jobs, registry: Registry) -> None:
    @registry.job("stepped")
    def stepped(attempt: Attempt) -> str:
        return attempt.step("one", lambda: "remembered")

    worker = Worker(jobs, lazy=True)
    worker.start()
    assert jobs.wait(jobs.start("stepped").id).result == "remembered"
    assert worker.stop()


def test_a_job_whose_steps_cannot_be_kept_here_fails_with_the_reason(
    jobs: Jobs, registry: Registry, start_worker: Callable[..., Worker]
) -> None:
    @registry.job("stepped")
    def stepped(attempt: Attempt) -> str:
        return attempt.step("one", lambda: "never")

    holder = Worker(Jobs(jobs.database, Registry()))
    holder.start()  # has DBOS, and no code
    other = Worker(jobs, lazy=True)
    other.start()
    job_id = jobs.start("stepped").id
    deadline = time.monotonic() + 20
    while jobs.get(job_id).failures == 0:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert "runs in this process already" in str(jobs.get(job_id).error)
    other.stop()
    holder.stop()


def test_dbos_stays_unloaded_until_a_job_has_steps(tmp_path: Path) -> None:
    code = f"""
import sys, time
from infra.database.engine import Database
from infra.database.migrate import upgrade
from infra.jobs.definitions import Behaviour, Registry
from infra.jobs.queue import Jobs
from infra.jobs.worker import Worker
registry = Registry()
registry.job("plain", behaviour=Behaviour(steps=False))(lambda attempt: "done")
database = Database("sqlite:///{tmp_path}/lazy.db")
upgrade(database)
jobs = Jobs(database, registry)
worker = Worker(jobs, lazy=True)
worker.start()
assert jobs.wait(jobs.start("plain").id).result == "done"
assert worker.stop()
assert "dbos" not in sys.modules
database.close()
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, cwd=ROOT, timeout=60)


def test_depth_counts_what_waits_and_how_long(jobs: Jobs, database: Database) -> None:
    assert jobs.depth().oldest_seconds == 0
    moments = [datetime(2026, 1, 1, 0, 0, second, tzinfo=UTC) for second in (0, 30, 50)]
    clock = iter([*moments, moments[-1]])
    earlier = Jobs(database, Registry(), now=lambda: next(clock))
    earlier.enqueue("a")
    earlier.enqueue("a", options=Options(at=datetime(2027, 1, 1, tzinfo=UTC)))
    depth = earlier.depth()
    assert (depth.queued, depth.running, depth.failed) == (2, 0, 0)
    assert depth.oldest_seconds == 50

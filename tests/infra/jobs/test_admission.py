"""Who runs next: priority, resources, tenants; and who is taken for dead."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select, update

from infra.database.engine import Database
from infra.jobs import leases
from infra.jobs.admission import LOCK, Capacity, Claimant, TenantLimits, claim
from infra.jobs.attempt import Attempt
from infra.jobs.definitions import Options, Registry, Resources, Retries
from infra.jobs.leases import Beat, Watch
from infra.jobs.lifecycle import Claim
from infra.jobs.processes import Process, find, this_machine, this_process
from infra.jobs.queue import Jobs
from infra.jobs.tables import job_worker
from infra.jobs.worker import Worker
from waiting import until

NOW = datetime(2026, 1, 1, tzinfo=UTC)
WAIT_FOREVER = [sys.executable, "-c", "import time; time.sleep(60)"]


def claimant(
    database: Database,
    worker_id: str = "w1",
    *,
    resources: Resources = Resources(cpu=100),  # noqa: B008
    slots: int = 100,
    limits: TenantLimits | None = None,
) -> Claimant:
    who = Claimant(worker_id, ("a", "b"), Capacity(resources, slots), limits or TenantLimits())
    with database.write() as connection:
        leases.register(connection, who, process=this_process(), now=NOW)
    return who


@pytest.fixture
def queue(database: Database) -> Jobs:
    return Jobs(database, Registry(), now=lambda: NOW)


def take(database: Database, who: Claimant) -> list[str]:
    return [each.job_id for each in claim(database, who, now=NOW)]


def test_higher_priority_goes_first_and_then_the_older(database: Database, queue: Jobs) -> None:
    ids = [queue.start("a", options=Options(priority=priority)).id for priority in (0, 5, -1, 5)]
    who = claimant(database, slots=3)
    assert take(database, who) == [ids[1], ids[3], ids[0]]
    assert take(database, who) == []


def test_worker_takes_no_more_than_its_resources(database: Database, queue: Jobs) -> None:
    def start(**needs: float) -> str:
        return queue.start("a", options=Options(resources=Resources(**needs))).id  # type: ignore[arg-type]

    first, second = start(cpu=1, gpu=1, memory_bytes=6), start(cpu=1, gpu=1, memory_bytes=6)
    third, huge = start(cpu=0.5, gpu=0, memory_bytes=1), start(cpu=64)
    who = claimant(database, resources=Resources(cpu=4, gpu=2, memory_bytes=10))
    assert take(database, who) == [first]
    bigger = claimant(database, "w2", resources=Resources(cpu=64, gpu=2, memory_bytes=100))
    assert take(database, bigger) == [second, third]
    assert queue.get(huge).state == "queued"


def test_large_job_is_not_starved_by_small_ones_behind_it(database: Database, queue: Jobs) -> None:
    def start(cpu: float) -> str:
        return queue.start("a", options=Options(resources=Resources(cpu=cpu))).id

    who = claimant(database, resources=Resources(cpu=4))
    running = start(3)
    assert take(database, who) == [running]
    large, small = start(4), start(1)
    assert take(database, who) == []
    queue.cancel(large)
    assert take(database, who) == [small]


def test_tenant_runs_no_more_at_once_than_its_limit(database: Database, queue: Jobs) -> None:
    greedy = [queue.start("a", options=Options(tenant="greedy")).id for _ in range(150)]
    modest = [queue.start("a", options=Options(tenant="modest")).id for _ in range(3)]
    favoured = [queue.start("a", options=Options(tenant="favoured")).id for _ in range(5)]
    blocked = queue.start("a", options=Options(tenant="blocked")).id
    limits = TenantLimits(default=2, of={"favoured": 4, "blocked": 0})
    first, second = (
        claimant(database, "w1", slots=3, limits=limits),
        claimant(database, "w2", limits=limits),
    )
    taken = take(database, first) + take(database, second) + take(database, second)
    assert sorted(taken) == sorted([*greedy[:2], *modest[:2], *favoured[:4]])
    assert queue.get(blocked).state == "queued"


def test_worker_takes_only_jobs_it_has_code_for(database: Database, queue: Jobs) -> None:
    queue.start("c")
    known = queue.start("b").id
    assert take(database, claimant(database)) == [known]


def test_worker_that_was_struck_off_takes_nothing(database: Database, queue: Jobs) -> None:
    queue.start("a")
    who = claimant(database)
    with database.write() as connection:
        leases.leave(connection, who.worker_id, now=NOW)
    assert take(database, who) == []


def test_workers_that_look_together_take_a_job_once(database: Database, queue: Jobs) -> None:
    ids = [queue.start("a").id for _ in range(30)]
    limits = TenantLimits(default=25)
    workers = [claimant(database, f"w{n}", slots=10, limits=limits) for n in range(4)]
    together = threading.Barrier(4)
    taken: list[str] = []

    def look(who: Claimant) -> None:
        together.wait(10)
        taken.extend(take(database, who))

    threads = [threading.Thread(target=look, args=[who]) for who in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 25
    assert set(taken) <= set(ids)
    assert len(set(taken)) == 25


def test_fences_grow_over_all_jobs(database: Database, queue: Jobs) -> None:
    who = claimant(database)
    fences = []
    for _ in range(3):
        queue.start("a")
        fences += [each.fence for each in claim(database, who, now=NOW)]
        with database.write() as connection:
            leases.leave(connection, who.worker_id, now=NOW)
        who = claimant(database)
        fences += sorted(each.fence for each in claim(database, who, now=NOW))
    assert fences == sorted(set(fences))
    assert len(fences) == 9


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0.01, 3.0), st.booleans()), min_size=1, max_size=40),
    st.floats(1.0, 20.0),
)
def test_worker_is_dead_exactly_when_its_watcher_saw_it_silent_for_the_lease(
    looks: list[tuple[float, bool]], lease: float
) -> None:
    moment, count, moved_at = 0.0, 0, 0.0
    watch = Watch(lease_seconds=lease, monotonic=lambda: moment)
    elsewhere = str(Process("elsewhere/boot/ns", 1, 1))
    watch.dead([Beat("w", elsewhere, count)])
    for pause, beats in looks:
        moment += pause
        count += beats
        if beats or pause > lease / 2:
            moved_at = moment
        found = watch.dead([Beat("w", elsewhere, count)])
        assert bool(found) == (moment - moved_at >= lease)


def test_worker_whose_process_is_gone_is_dead_at_once() -> None:
    watch = Watch(lease_seconds=1000, monotonic=lambda: 0.0)
    process = subprocess.Popen(WAIT_FOREVER)
    try:
        identity = find(process.pid)
        assert identity is not None
        assert not identity.is_gone
        assert watch.dead([Beat("w", str(identity), 0)]) == []
        process.kill()
        process.wait(10)
        assert watch.dead([Beat("w", str(identity), 0)]) == [Beat("w", str(identity), 0)]
    finally:
        process.kill()
        process.wait(10)


def test_process_that_has_the_number_of_another_is_not_taken_for_it() -> None:
    mine = this_process()
    assert not mine.is_gone
    assert Process.parse(str(mine)) == mine
    assert Process(mine.machine, mine.pid, mine.started + 1).is_gone
    assert not Process("other/boot/ns", mine.pid, mine.started + 1).is_gone
    assert find(os.getpid()) == mine
    assert mine.machine == this_machine()


def test_dead_workers_jobs_go_back_to_the_queue_until_it_is_enough(
    database: Database, queue: Jobs
) -> None:
    registry = Registry()
    registry.job("a", retries=Retries(crashes=2))(len)
    job_id = queue.start("a").id
    for crash in (1, 2):
        who = claimant(database, f"w{crash}")
        assert take(database, who) == [job_id]
        with database.write(lock=LOCK) as connection:
            silent = [each for each in leases.read_beats(connection) if each.count == 0]
            (lost,) = leases.reap(connection, silent, registry=registry, now=NOW)
        assert lost.job_id == job_id
        assert queue.get(job_id).crashes == crash
    assert queue.get(job_id).state == "failed"
    assert "died 2 times" in (queue.get(job_id).error or "")
    assert [each.outcome for each in queue.attempts(job_id)] == ["lost", "lost"]


def test_worker_that_beats_again_in_the_last_moment_keeps_its_jobs(
    database: Database, queue: Jobs
) -> None:
    job_id = queue.start("a").id
    who = claimant(database)
    take(database, who)
    with database.write(lock=LOCK) as connection:
        seen = leases.read_beats(connection)
        leases.beat(connection, who.worker_id, now=NOW)
        assert leases.reap(connection, seen, registry=Registry(), now=NOW) == []
    assert queue.get(job_id).state == "running"


def test_cancelled_job_of_a_dead_worker_stays_cancelled(database: Database, queue: Jobs) -> None:
    job_id = queue.start("a").id
    take(database, claimant(database))
    queue.cancel(job_id)
    with database.write(lock=LOCK) as connection:
        leases.reap(connection, leases.read_beats(connection), registry=Registry(), now=NOW)
    assert queue.get(job_id).state == "cancelled"


def test_job_without_code_anywhere_fails_by_name_and_runs_after_the_next_deploy(
    jobs: Jobs, registry: Registry, start_worker: Callable[..., Worker]
) -> None:
    @registry.job("known")
    def known(attempt: Attempt) -> None:
        del attempt

    worker = start_worker()
    job_id = jobs.start("retired").id
    assert jobs.wait(job_id, timeout_seconds=15).state == "failed"
    assert "code for job 'retired'" in (jobs.get(job_id).error or "")
    worker.stop()

    @registry.job("retired")
    def retired(attempt: Attempt) -> str:
        return "back"

    start_worker()
    jobs.requeue(job_id)
    assert jobs.wait(job_id).result == "back"


def test_worker_taken_for_dead_starts_over_and_its_attempt_ends(
    jobs: Jobs,
    registry: Registry,
    database: Database,
    start_worker: Callable[..., Worker],
) -> None:
    begun: list[int] = []
    ended: list[str] = []

    @registry.job("held")
    def held(attempt: Attempt) -> int:
        begun.append(attempt.fence)
        if len(begun) == 1:
            try:
                attempt.wait(3600)
            except BaseException as interruption:
                ended.append(str(interruption))
                raise
        return attempt.fence

    worker = start_worker()
    job_id = jobs.start("held").id
    until(lambda: len(begun) == 1)
    with database.write(lock=LOCK) as connection:
        connection.execute(update(job_worker).values(beat=-7))
        beats = leases.read_beats(connection)
        leases.reap(connection, beats, registry=registry, now=datetime.now(UTC))
    assert jobs.wait(job_id).result == begun[1] > begun[0]
    assert ended == ["superseded"]
    assert [each.outcome for each in jobs.attempts(job_id)] == ["lost", "succeeded"]
    with database.read() as connection:
        assert connection.scalars(select(job_worker.c.id)).all() == [worker.id]


def test_job_that_the_worker_lost_track_of_is_put_back(
    jobs: Jobs, registry: Registry, database: Database, start_worker: Callable[..., Worker]
) -> None:
    @registry.job("a")
    def a(attempt: Attempt) -> int:
        return attempt.fence

    worker = start_worker(slots=0)
    job_id = jobs.start("a").id
    who = Claimant(worker.id, ("a",), Capacity(Resources(cpu=100), 100), TenantLimits())
    (stray,) = claim(database, who, now=datetime.now(UTC))
    assert isinstance(stray, Claim)
    deadline = time.monotonic() + 10
    while jobs.get(job_id).state == "running":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert [each.outcome for each in jobs.attempts(job_id)] == ["released"]


def test_finished_jobs_are_forgotten_after_their_time(
    database: Database, registry: Registry
) -> None:
    from infra.jobs.retention import sweep

    moment = NOW
    jobs = Jobs(database, registry, now=lambda: moment)
    old, recent = jobs.start("a").id, jobs.start("a").id
    jobs.cancel(old)
    moment = NOW + timedelta(days=20)
    jobs.cancel(recent)
    waiting = jobs.start("a").id
    forgotten: list[str] = []
    moment = NOW + timedelta(days=31)
    assert sweep(database, forget=forgotten.extend, now=moment, keep=timedelta(days=30)) == 1
    assert [each.id for each in jobs.list()] == [waiting, recent]
    assert forgotten == []

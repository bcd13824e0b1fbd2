"""Workers are killed and frozen at random; effects happen once, and zombies publish nothing."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import select, text

from infra.artifacts.tables import alias
from infra.database.engine import Database
from infra.jobs.definitions import Registry
from infra.jobs.external import attach
from infra.jobs.queue import Jobs
from infra.jobs.tables import job
from waiting import until

WORKER = Path(__file__).parent / "jobs_worker.py"
Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "effects"
    path.mkdir()
    yield path
    if (path / "state").exists():
        attach(path / "state").cancel(grace_seconds=0)


@pytest.fixture
def jobs(database: Database) -> Jobs:
    with database.write() as connection:
        connection.execute(text("CREATE TABLE effect (number INTEGER, part TEXT)"))
    return Jobs(database, Registry())


@pytest.fixture
def start_worker(database_url: str, folder: Path) -> Iterator[Start]:
    started: list[subprocess.Popen[bytes]] = []

    def start(slots: str = "4") -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, str(WORKER), database_url, str(folder), slots],
            env={**os.environ, "PYTHONPATH": str(WORKER.parents[2])},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait(10)


def effects(database: Database) -> list[tuple[int, str]]:
    with database.read() as connection:
        rows = connection.execute(text("SELECT number, part FROM effect ORDER BY number, part"))
        return [(row.number, row.part) for row in rows]


@pytest.mark.parametrize(
    ("count", "kills"),
    [
        pytest.param(60, 4, id="short"),
        pytest.param(1000, 40, id="long", marks=[pytest.mark.slow, pytest.mark.timeout(3600)]),
    ],
)
def test_every_effect_happens_once_whatever_is_killed(
    count: int, kills: int, jobs: Jobs, database: Database, folder: Path, start_worker: Start
) -> None:
    chance = random.Random(count)
    ids = [jobs.start("effects", {"number": number}).id for number in range(count)]
    workers = [start_worker(), start_worker()]
    for _ in range(kills):
        _wait_for_effects(database, chance, limit=2 * count)
        victim = chance.randrange(len(workers))
        workers[victim].kill()
        workers[victim].wait(10)
        workers[victim] = start_worker()
    until(lambda: not _unfinished(jobs), seconds=30 + count)
    assert effects(database) == [
        (number, part) for number in range(count) for part in ("first", "second")
    ]
    finished = [jobs.get(job_id) for job_id in ids]
    assert [each.result for each in finished] == list(range(count))
    assert {path.name for path in folder.glob("*.file")} == {f"{n}.file" for n in range(count)}
    lost = [each for job_id in ids for each in jobs.attempts(job_id) if each.outcome == "lost"]
    assert lost, "no kill hit a running job: the test proved nothing"
    for worker in workers:
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(30) == 0


def test_transaction_happens_once_wherever_around_it_the_worker_dies(
    jobs: Jobs, database: Database, start_worker: Start
) -> None:
    points = ["written", "committed", "recorded"]
    ids = [
        jobs.start("fragile", {"number": number, "point": point}).id
        for number, point in enumerate(points)
    ]
    deaths = 0
    worker = start_worker("1")
    while _unfinished(jobs):
        if worker.poll() is not None:
            assert worker.returncode == -signal.SIGKILL
            deaths += 1
            worker = start_worker("1")
        time.sleep(0.02)
    assert deaths == len(points)
    assert effects(database) == list(enumerate(points))
    assert [[each.outcome for each in jobs.attempts(job_id)] for job_id in ids] == [
        ["lost", "succeeded"]
    ] * len(points)


def _wait_for_effects(database: Database, chance: random.Random, *, limit: int) -> None:
    """Let some more happen, and then a little time pass: the next kill hits anywhere."""
    goal = min(limit, len(effects(database)) + chance.randrange(1, 12))
    until(lambda: len(effects(database)) >= goal)
    time.sleep(chance.uniform(0, 0.05))


def _unfinished(jobs: Jobs) -> bool:
    with jobs.database.read() as connection:
        states = connection.scalars(select(job.c.state).distinct()).all()
    return "queued" in states or "running" in states


def test_dead_workers_job_is_taken_up_within_seconds(
    jobs: Jobs, folder: Path, start_worker: Start
) -> None:
    job_id = jobs.start("train").id
    first = start_worker()
    until(lambda: (folder / "count").exists())
    second = start_worker()
    until(lambda: len(_worker_ids(jobs)) == 2)
    first.kill()
    killed_at = datetime.now(UTC)
    until(lambda: len(jobs.attempts(job_id)) == 2)
    attempt = jobs.attempts(job_id)[1]
    assert (attempt.started_at - killed_at).total_seconds() < 10
    assert second.poll() is None
    (folder / "finish").touch()
    assert jobs.wait(job_id).result == 6


def test_program_outlives_the_killed_worker_and_the_next_one_finds_it(
    jobs: Jobs, folder: Path, start_worker: Start
) -> None:
    job_id = jobs.start("train").id
    worker = start_worker()
    until(lambda: (folder / "count").exists())
    program = attach(folder / "state")
    worker.kill()
    worker.wait(10)
    assert program.exit_code() is None
    start_worker()
    until(lambda: len(jobs.attempts(job_id)) == 2)
    assert attach(folder / "state").process == program.process
    (folder / "finish").touch()
    assert jobs.wait(job_id).result == 6
    assert (folder / "count").read_text() == "once\n"


def test_zombie_with_an_old_fence_publishes_nothing(
    jobs: Jobs, database: Database, folder: Path, start_worker: Start
) -> None:
    job_id = jobs.start("publish").id
    zombie = start_worker()
    until(lambda: (folder / "reached").exists())
    assert (folder / "reached").read_text() == str(zombie.pid)
    zombie.send_signal(signal.SIGSTOP)  # as a machine that swaps, or a network that is cut
    start_worker()
    published = jobs.wait(job_id, timeout_seconds=60)
    first, second = jobs.attempts(job_id)
    assert (first.outcome, second.outcome) == ("lost", "succeeded")
    assert second.fence > first.fence
    (folder / "go").touch()
    zombie.send_signal(signal.SIGCONT)
    until(lambda: (folder / "refused").exists())
    assert (folder / "refused").read_text().splitlines() == [
        "alias",
        "guard superseded",
        "progress superseded",
        "transaction superseded",
        "step superseded",
    ]
    assert effects(database) == [(0, f"fence {second.fence}")]
    with database.read() as connection:
        (row,) = connection.execute(select(alias.c.digest, alias.c.token))
    assert tuple(row) == (f"sha256:{second.fence}", second.fence)
    assert jobs.get(job_id) == published
    until(lambda: zombie.poll() is None and len(_worker_ids(jobs)) == 2)


def _worker_ids(jobs: Jobs) -> list[str]:
    with jobs.database.read() as connection:
        return list(connection.scalars(text("SELECT id FROM job_worker")))

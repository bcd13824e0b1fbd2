"""The job that launches a program: it waits, tells, cancels, and takes up what it launched."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.database.engine import Database
from infra.errors import InvalidRequest, StorageFailed
from infra.jobs.admission import Capacity
from infra.jobs.attempt import Attempt
from infra.jobs.definitions import Options, Registry, Resources
from infra.jobs.queue import Jobs
from infra.jobs.worker import Timing, Worker
from training.launchers import Launcher, handle_for, open_launcher
from training.launchers._supervisor import members
from training.launching import register
from waiting import until

FAST = Timing(poll_seconds=0.05, beat_seconds=0.1, lease_seconds=1.0, orphan_seconds=0.5)
Start = Callable[..., str]


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[Launcher]:
    yield open_launcher("local", folder=tmp_path / "runs", gpus=("0",))
    for state in (tmp_path / "runs").glob("run-*"):
        for pid in members(state.name, session=-1):
            os.kill(pid, 9)


@pytest.fixture
def jobs(database: Database, launcher: Launcher) -> Jobs:
    registry = Registry()
    register(registry, {"local": launcher}.__getitem__, poll_seconds=0.05)
    return Jobs(database, registry)


@pytest.fixture
def start_worker(jobs: Jobs) -> Iterator[Callable[[], Worker]]:
    started: list[Worker] = []

    def start() -> Worker:
        started.append(Worker(jobs, capacity=Capacity(Resources(cpu=4), 4), timing=FAST))
        started[-1].start()
        return started[-1]

    yield start
    for worker in started:
        if not worker.is_stopped:
            worker.stop(grace_seconds=5)


@pytest.fixture
def start(jobs: Jobs, tmp_path: Path) -> Start:
    def start(script: str, **fields: Any) -> str:
        spec = {"command": ["sh", "-c", script], "folder": str(tmp_path), **fields}
        return jobs.start("launch", {"launcher": "local", "spec": spec}).id

    return start


pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def test_result_of_a_run_is_that_of_its_job(
    jobs: Jobs, start: Start, start_worker: Callable[[], Worker], launcher: Launcher
) -> None:
    start_worker()
    job = jobs.wait(start("echo trained"))
    assert job.state == "succeeded"
    handle = launcher.reattach(job.result["handle"])
    assert handle == handle_for("local", f"{job.id}:0")
    assert job.result == {
        "handle": handle,
        "state": "succeeded",
        "exit_code": 0,
        "reason": None,
        "message": "",
    }
    assert launcher.logs(handle).text == "trained\n"
    assert f"watching {handle}" in [line.message for line in jobs.logs(job.id)]


def test_a_report_that_cannot_be_kept_does_not_end_the_attempt(
    jobs: Jobs,
    start: Start,
    start_worker: Callable[[], Worker],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    def full(*_: Any) -> None:
        (tmp_path / "go").touch()
        raise StorageFailed("the disk is full")

    monkeypatch.setattr(Attempt, "progress", full)
    start_worker()
    job = jobs.wait(start("while [ ! -e go ]; do sleep 0.02; done"))
    assert (job.state, job.failures) == ("succeeded", 0)


def test_failed_run_fails_its_job_at_once_and_says_why(
    jobs: Jobs, start: Start, start_worker: Callable[[], Worker], tmp_path: Path
) -> None:
    start_worker()
    job = jobs.wait(start("echo once >> count; exit 3"))
    assert job.state == "failed"
    assert job.error is not None
    assert "RunFailed" in job.error
    assert "(exit, exit code 3)" in job.error
    assert len(jobs.attempts(job.id)) == 1
    jobs.requeue(job.id)
    assert jobs.wait(job.id).state == "failed"
    assert (tmp_path / "count").read_text() == "once\n"
    jobs.requeue(job.id, from_scratch=True)
    assert jobs.wait(job.id).state == "failed"
    assert (tmp_path / "count").read_text() == "once\nonce\n"


def test_job_waits_for_a_gpu_and_says_so(
    jobs: Jobs, start: Start, start_worker: Callable[[], Worker], tmp_path: Path
) -> None:
    start_worker()
    first = start("while [ ! -e go ]; do sleep 0.02; done", gpus=1)
    until(lambda: jobs.get(first).progress.message == "running")
    second = start("true", gpus=1)
    until(lambda: "0 of 1 are free" in jobs.get(second).progress.message)
    (tmp_path / "go").touch()
    assert [jobs.wait(each).state for each in (first, second)] == ["succeeded"] * 2


def test_cancelled_job_ends_its_run(
    jobs: Jobs,
    start: Start,
    start_worker: Callable[[], Worker],
    launcher: Launcher,
    tmp_path: Path,
) -> None:
    start_worker()
    job = start("trap 'echo saved; exit 0' TERM; touch up; while :; do sleep 0.02; done")
    until((tmp_path / "up").exists)
    jobs.cancel(job)
    assert jobs.wait(job).state == "cancelled"
    handle = handle_for("local", f"{job}:0")
    assert launcher.poll(handle).reason == "cancelled"
    assert "saved" in launcher.logs(handle).text


def test_stopped_worker_leaves_the_run_to_the_next_one(
    jobs: Jobs, start: Start, start_worker: Callable[[], Worker], tmp_path: Path
) -> None:
    worker = start_worker()
    job = start("echo once >> count; while [ ! -e go ]; do sleep 0.02; done; exit 0")
    until((tmp_path / "count").exists)
    worker.stop()
    assert jobs.get(job).state == "queued"
    start_worker()
    until(lambda: len(jobs.attempts(job)) == 2)
    (tmp_path / "go").touch()
    assert jobs.wait(job).result["exit_code"] == 0
    assert (tmp_path / "count").read_text() == "once\n"


def test_impossible_specification_is_given_up_at_once(
    jobs: Jobs, start: Start, start_worker: Callable[[], Worker]
) -> None:
    start_worker()
    unknown = jobs.wait(start("true", gpu=1))
    assert unknown.state == "failed"
    assert "no 'gpu'" in str(unknown.error)
    too_many = jobs.wait(start("true", gpus=2))
    assert too_many.state == "failed"
    assert "this machine has 1" in str(too_many.error)
    with pytest.raises(InvalidRequest):
        jobs.start("launch", {"launch": "local"}, options=Options())


def test_job_cancelled_while_nobody_watches_ends_its_run(
    jobs: Jobs,
    start: Start,
    start_worker: Callable[[], Worker],
    launcher: Launcher,
    tmp_path: Path,
) -> None:
    watcher = start_worker()
    job = start("touch up; while :; do sleep 0.02; done")
    until((tmp_path / "up").exists)
    watcher.stop()
    asked = jobs.cancel(job)
    assert (asked.state, asked.cancel_requested) == ("queued", True)
    handle = handle_for("local", f"{job}:0")
    assert launcher.poll(handle).state == "running"
    start_worker()
    assert jobs.wait(job).state == "cancelled"
    assert launcher.poll(handle).reason == "cancelled"

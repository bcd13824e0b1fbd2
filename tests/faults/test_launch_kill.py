"""Whoever watches a run is killed: it is launched once, and its result is collected."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra.database.engine import Database
from infra.jobs.definitions import Registry
from infra.jobs.queue import Jobs
from training.launchers import Launcher, handle_for, open_launcher
from training.launchers._supervisor import members
from waiting import until

WORKER = Path(__file__).parent / "launch_worker.py"
Start = Callable[[], "subprocess.Popen[bytes]"]
SCRIPT = "echo once >> count; while [ ! -e go ]; do sleep 0.02; done; echo trained"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "place"
    path.mkdir()
    yield path
    for state in (path / "runs").glob("run-*"):
        for pid in members(state.name, session=-1):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def launcher(folder: Path) -> Launcher:
    return open_launcher("local", folder=folder / "runs")


@pytest.fixture
def jobs(database: Database) -> Jobs:
    return Jobs(database, Registry())


@pytest.fixture
def start_worker(database_url: str, folder: Path) -> Iterator[Start]:
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        command = [sys.executable, str(WORKER), database_url, str(folder)]
        environment = {**os.environ, "PYTHONPATH": str(WORKER.parents[2])}
        started.append(subprocess.Popen(command, env=environment))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait(10)


def launch(jobs: Jobs, folder: Path) -> str:
    spec = {"command": ["sh", "-c", SCRIPT], "folder": str(folder), "grace_seconds": 1}
    return jobs.start("launch", {"launcher": "local", "spec": spec}).id


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_killed_watcher_launches_no_second_run_and_the_result_is_collected(
    jobs: Jobs, folder: Path, start_worker: Start, launcher: Launcher
) -> None:
    job_id = launch(jobs, folder)
    worker = start_worker()
    until((folder / "count").exists)
    until(lambda: jobs.get(job_id).progress.message == "running")
    worker.kill()
    worker.wait(10)
    handle = handle_for("local", f"{job_id}:0")
    assert launcher.poll(handle).state == "running"
    start_worker()
    until(lambda: len(jobs.attempts(job_id)) == 2)
    (folder / "go").touch()
    job = jobs.wait(job_id)
    assert (job.state, job.result["exit_code"], job.result["handle"]) == ("succeeded", 0, handle)
    assert [each.outcome for each in jobs.attempts(job_id)] == ["lost", "succeeded"]
    assert launcher.logs(handle).text == "trained\n"
    assert (folder / "count").read_text() == "once\n"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_launcher_killed_around_the_launch_launches_once_though_it_ends_unwatched(
    jobs: Jobs, folder: Path, start_worker: Start
) -> None:
    for point in ("before", "launched"):
        (folder / f"die-{point}").touch()
    job_id = launch(jobs, folder)
    for _ in range(2):
        assert start_worker().wait(60) == -signal.SIGKILL
    until((folder / "count").exists)
    (folder / "go").touch()
    run_id = handle_for("local", f"{job_id}:0").partition(":")[2]
    until((folder / "runs" / run_id / "exit_code").exists)
    start_worker()
    job = jobs.wait(job_id)
    assert (job.state, job.result["exit_code"]) == ("succeeded", 0)
    assert [each.outcome for each in jobs.attempts(job_id)] == ["lost", "lost", "succeeded"]
    assert (folder / "count").read_text() == "once\n"

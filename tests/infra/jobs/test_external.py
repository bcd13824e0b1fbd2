"""Detached programs: started once, found again, ended with all their children."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra.errors import Conflict, InvalidRequest, NotFound
from infra.jobs import external
from infra.jobs.attempt import Attempt
from infra.jobs.definitions import Behaviour, Registry
from infra.jobs.external import Command, External, ProcessVanished, attach, launch
from infra.jobs.processes import session_members
from infra.jobs.queue import Jobs
from infra.jobs.worker import Worker
from waiting import until

ROOT = Path(__file__).parents[3]


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Callable[..., External]]:
    """Launch a shell script; whatever it leaves behind is ended after the test."""
    launched: list[External] = []

    def start(script: str, *arguments: str, name: str = "state") -> External:
        command = Command(["sh", "-c", script, "sh", *arguments], folder=tmp_path)
        launched.append(launch(command, state=tmp_path / name))
        return launched[-1]

    yield start
    for each in launched:
        each.cancel(grace_seconds=0)
        assert each.members() == []


def ended(program: External) -> int:
    deadline = time.monotonic() + 20
    while (code := program.exit_code()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return code


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", -9), ("no-such-tool", 127)]
)
def test_exit_code_is_what_the_program_ended_with(
    shell: Callable[..., External], script: str, code: int
) -> None:
    assert ended(shell(script)) == code


def test_output_arguments_and_folder_arrive_as_given(
    shell: Callable[..., External], tmp_path: Path
) -> None:
    program = shell('pwd; printf "<%s>" "$@"; echo oops >&2', "a b", "'", "$HOME", "*")
    assert ended(program) == 0
    assert program.output.read_text() == f"{tmp_path}\n<a b><'><$HOME><*>oops\n"


def test_program_starts_once_however_often_it_is_launched(
    shell: Callable[..., External], tmp_path: Path
) -> None:
    leaders: list[int] = []
    script = "echo started >> count; sleep 60"
    threads = [
        threading.Thread(target=lambda: leaders.append(shell(script).process.pid)) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(leaders)) == 1
    assert attach(tmp_path / "state").exit_code() is None
    time.sleep(1)  # enough for a second one to say so
    assert (tmp_path / "count").read_text() == "started\n"


def test_program_that_ended_is_not_started_again(shell: Callable[..., External]) -> None:
    assert ended(shell("exit 3")) == 3
    assert shell("exit 4").exit_code() == 3


def test_cancel_lets_the_program_end_by_itself(
    shell: Callable[..., External], tmp_path: Path
) -> None:
    program = shell("trap 'echo saved; exit 5' TERM; echo up; while :; do sleep 0.05; done")
    while "up" not in program.output.read_text():
        time.sleep(0.01)
    program.cancel(grace_seconds=10)
    assert ended(program) == 5
    assert "saved" in program.output.read_text()


def test_cancel_kills_what_does_not_end_and_its_children(
    shell: Callable[..., External],
) -> None:
    # The second child leads a process group of its own, as those of torchrun do.
    program = shell(
        "trap '' TERM; sleep 600 & set -m; sleep 600 & set +m; echo up; wait; sleep 600"
    )
    while "up" not in program.output.read_text():
        time.sleep(0.01)
    assert len(program.members()) == 4
    program.cancel(grace_seconds=0.2)
    assert program.members() == []
    assert ended(program) == -9


def test_program_killed_together_with_its_leader_has_vanished(
    shell: Callable[..., External],
) -> None:
    program = shell("sleep 600")
    for pid in session_members(program.process.pid):
        # A member may end by itself between the look and the kill, once its leader is gone.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    with pytest.raises(ProcessVanished, match="left no exit code"):
        ended(program)


def test_program_outlives_its_launcher_and_is_found_again(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path;"
        "from infra.jobs.external import Command, launch;"
        "launch(Command(['sh', '-c', 'sleep 1; echo done'], folder=Path('.')),"
        " state=Path('state'));"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    launcher = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=60,
    )
    assert launcher.returncode == -signal.SIGKILL
    program = attach(tmp_path / "state")
    assert program.exit_code() is None
    assert ended(program) == 0
    assert program.output.read_text() == "done\n"


def test_program_of_another_machine_is_left_alone(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    (state / "process").write_text("elsewhere/boot/pid:[1]|4711|S " + "1 " * 30)
    program = attach(state)
    with pytest.raises(Conflict, match="'elsewhere/boot"):
        program.exit_code()
    program.cancel(grace_seconds=0)
    (state / "exit_code").write_text("0\n")
    assert program.exit_code() == 0


def test_program_from_before_a_restart_of_the_machine_has_vanished(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    host = os.uname().nodename
    (state / "process").write_text(f"{host}/earlier-boot/pid:[1]|{os.getpid()}|S " + "1 " * 30)
    with pytest.raises(ProcessVanished):
        attach(state).exit_code()


def test_impossible_launches_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="empty"):
        launch(Command([], folder=tmp_path), state=tmp_path / "s")
    with pytest.raises(InvalidRequest, match="nowhere"):
        launch(Command(["true"], folder=tmp_path / "nowhere"), state=tmp_path / "s")
    with pytest.raises(NotFound, match="s"):
        attach(tmp_path / "s")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_job_goes_on_watching_its_program_after_a_restart_of_the_worker(
    jobs: Jobs, registry: Registry, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    watching = threading.Event()

    @registry.job("train")
    def train(attempt: Attempt) -> int:
        command = Command(["sh", "-c", "echo once >> count; sleep 2; exit 4"], folder=tmp_path)
        program = launch(command, state=tmp_path / attempt.job_id)
        attempt.step("started", lambda: program.process.pid)
        watching.set()
        return external.run(attempt, command, state=program.state, poll_seconds=0.05)

    worker = start_worker()
    job_id = jobs.start("train").id
    assert watching.wait(10)
    worker.stop()
    assert attach(tmp_path / job_id).exit_code() is None
    start_worker()
    assert jobs.wait(job_id).result == 4
    assert (tmp_path / "count").read_text() == "once\n"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_cancelled_job_ends_its_program(
    jobs: Jobs,
    registry: Registry,
    start_worker: Callable[..., Worker],
    tmp_path: Path,
) -> None:
    @registry.job("train")
    def train(attempt: Attempt) -> int:
        command = Command(["sleep", "600"], folder=tmp_path)
        return external.run(attempt, command, state=tmp_path / "state", grace_seconds=5)

    start_worker()
    job_id = jobs.start("train").id
    until((tmp_path / "state" / "process").exists)
    jobs.cancel(job_id)
    assert jobs.wait(job_id).state == "cancelled"
    assert attach(tmp_path / "state").members() == []


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_job_cancelled_while_its_worker_was_gone_ends_its_program_and_starts_none(
    jobs: Jobs,
    registry: Registry,
    start_worker: Callable[..., Worker],
    tmp_path: Path,
) -> None:
    @registry.job("train", behaviour=Behaviour(detached=True))
    def train(attempt: Attempt, *, state: str) -> int:
        command = Command(["sleep", "600"], folder=tmp_path)
        return external.run(attempt, command, state=tmp_path / state, grace_seconds=5)

    worker = start_worker()
    running = jobs.start("train", {"state": "one"}).id
    until((tmp_path / "one" / "process").exists)
    worker.stop()
    never_run = jobs.start("train", {"state": "two"}).id
    assert jobs.cancel(running).state == "queued"
    assert jobs.cancel(never_run).state == "cancelled"
    assert attach(tmp_path / "one").members()
    start_worker()
    assert jobs.wait(running).state == "cancelled"
    assert attach(tmp_path / "one").members() == []
    assert not (tmp_path / "two").exists()

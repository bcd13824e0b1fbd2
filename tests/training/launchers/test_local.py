"""Programs of this machine: GPUs are shared out, limits hold, nothing is left behind."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.errors import Conflict, InvalidRequest, NotReady
from infra.jobs.external import attach
from infra.jobs.processes import find
from training.launchers import Handle, Launcher, Spec, Status, open_launcher
from training.launchers._supervisor import members
from training.launchers.local import devices
from waiting import until

Ended = Callable[[Launcher, Handle], Status]
TOLD = 'echo "gpus <$CUDA_VISIBLE_DEVICES>"'


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[Launcher]:
    yield open_launcher("local", folder=tmp_path / "runs", gpus=("0", "1"))
    left = [
        pid
        for state in (tmp_path / "runs").glob("run-*")
        for pid in members(state.name, session=-1)
    ]
    for pid in left:
        os.kill(pid, signal.SIGKILL)


def shell(folder: Path, script: str, *arguments: str, **fields: Any) -> Spec:
    return Spec(("sh", "-c", script, "sh", *arguments), str(folder), **fields)


def state_of(tmp_path: Path, handle: Handle) -> Path:
    return tmp_path / "runs" / handle.partition(":")[2]


def test_each_run_gets_gpus_of_its_own(launcher: Launcher, tmp_path: Path, ended: Ended) -> None:
    held = shell(tmp_path, f"{TOLD}; while [ ! -e go ]; do sleep 0.02; done", gpus=1)
    first = launcher.submit(held, key="first")
    second = launcher.submit(held, key="second")
    assert launcher.submit(held, key="first") == first
    one_more = shell(tmp_path, TOLD, gpus=1)
    with pytest.raises(NotReady, match="0 of 2 are free"):
        launcher.submit(one_more, key="third")
    none = launcher.submit(shell(tmp_path, TOLD), key="none")
    assert ended(launcher, none).exit_code == 0
    (tmp_path / "go").touch()
    for handle in (first, second):
        assert ended(launcher, handle).exit_code == 0
    third = launcher.submit(one_more, key="third")
    both = shell(tmp_path, TOLD, gpus=2)
    assert ended(launcher, third).exit_code == 0
    fourth = launcher.submit(both, key="fourth")
    assert ended(launcher, fourth).exit_code == 0
    runs = (first, second, none, third, fourth)
    assert [launcher.logs(run).text.strip() for run in runs] == [
        *("gpus <0>", "gpus <1>", "gpus <>", "gpus <0>", "gpus <0,1>"),
    ]
    with pytest.raises(InvalidRequest, match="wants 3 GPUs; this machine has 2"):
        launcher.submit(shell(tmp_path, TOLD, gpus=3), key="fifth")


def test_gpus_are_free_again_when_everything_was_killed(
    launcher: Launcher, tmp_path: Path, ended: Ended
) -> None:
    spec = shell(tmp_path, "sleep 600", gpus=2)
    handle = launcher.submit(spec, key="killed")
    run = attach(state_of(tmp_path, handle))
    until(lambda: len(run.members()) == 4)  # the shell, the supervisor, and two of the program
    for pid in run.members():
        os.kill(pid, signal.SIGKILL)
    until(lambda: not run.members())
    status = ended(launcher, handle)
    assert (status.state, status.exit_code, status.reason) == ("failed", None, "lost")
    after = launcher.submit(shell(tmp_path, TOLD, gpus=2), key="after")
    assert ended(launcher, after).exit_code == 0
    assert launcher.logs(after).text == "gpus <0,1>\n"


def test_gpus_of_this_process_are_those_it_may_see(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5f,")
    assert devices() == ["3", "GPU-5f"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert devices() == []


def test_what_a_program_leaves_in_the_background_ends_with_it(
    launcher: Launcher, tmp_path: Path, ended: Ended
) -> None:
    # One in its own session, as the processes of torchrun are; one that does not listen.
    script = (
        "setsid sh -c 'trap \"\" TERM; echo $$ > own; while :; do sleep 1; done' & sleep 600 & "
        "echo $! > shared; while [ ! -s own ]; do sleep 0.02; done; exit 3"
    )
    handle = launcher.submit(shell(tmp_path, script, grace_seconds=0.3), key="background")
    assert ended(launcher, handle).exit_code == 3
    for name in ("own", "shared"):
        assert find(int((tmp_path / name).read_text())) is None


def test_killed_supervisor_leaves_a_run_that_can_be_cancelled(
    launcher: Launcher, tmp_path: Path
) -> None:
    handle = launcher.submit(shell(tmp_path, "echo $PPID > above; sleep 600"), key="supervisor")
    until(lambda: (tmp_path / "above").exists() and (tmp_path / "above").read_text())
    os.kill(int((tmp_path / "above").read_text()), signal.SIGKILL)
    until(lambda: "supervisor was killed" in launcher.poll(handle).message)
    assert launcher.poll(handle).state == "running"
    launcher.cancel(handle, grace_seconds=1)
    status = launcher.poll(handle)
    assert (status.state, status.exit_code, status.reason) == ("failed", -9, "cancelled")
    assert attach(state_of(tmp_path, handle)).members() == []


def test_program_that_kills_itself_did_not_run_out_of_memory(
    launcher: Launcher, tmp_path: Path, ended: Ended
) -> None:
    status = ended(launcher, launcher.submit(shell(tmp_path, "kill -9 $$"), key="itself"))
    assert (status.state, status.exit_code, status.reason) == ("failed", -9, "exit")


def test_program_may_save_its_work_when_its_time_is_over(
    launcher: Launcher, tmp_path: Path, ended: Ended
) -> None:
    script = "trap 'echo saved; exit 0' TERM; while :; do sleep 0.02; done"
    spec = shell(tmp_path, script, time_limit_seconds=0.5, grace_seconds=10.0)
    handle = launcher.submit(spec, key="late")
    status = ended(launcher, handle)
    assert (status.exit_code, status.reason) == (0, "timeout")
    assert launcher.logs(handle).text.splitlines()[-1] == "saved"


def test_program_gets_no_variable_it_was_not_given(
    launcher: Launcher, tmp_path: Path, ended: Ended, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_PASSWORD_OF_THE_SERVICE", "hidden")
    handle = launcher.submit(shell(tmp_path, "env"), key="environment")
    assert ended(launcher, handle).exit_code == 0
    assert "PATH=" in launcher.logs(handle).text
    assert "hidden" not in launcher.logs(handle).text


def test_folder_of_a_run_is_its_owners_alone(
    launcher: Launcher, tmp_path: Path, ended: Ended
) -> None:
    handle = launcher.submit(shell(tmp_path, "true"), key="mode")
    assert ended(launcher, handle).exit_code == 0
    assert state_of(tmp_path, handle).stat().st_mode & 0o777 == 0o700


def test_run_of_another_machine_is_left_alone(launcher: Launcher, tmp_path: Path) -> None:
    handle = launcher.submit(shell(tmp_path, "sleep 600"), key="elsewhere")
    state = state_of(tmp_path, handle)
    entry = (state / "process").read_text()
    (state / "process").write_text("elsewhere/boot/pid:[1]|" + entry.partition("|")[2])
    for call in (launcher.poll, launcher.cancel):
        with pytest.raises(Conflict, match="elsewhere"):
            call(handle)
    (state / "process").write_text(entry)
    launcher.cancel(handle, grace_seconds=0)


def test_impossible_runs_are_refused_before_anything_is_started(
    launcher: Launcher, tmp_path: Path
) -> None:
    with pytest.raises(InvalidRequest, match="No folder"):
        launcher.submit(shell(tmp_path / "nowhere", "true"), key="nowhere")
    with pytest.raises(InvalidRequest, match="2 nodes"):
        launcher.submit(shell(tmp_path, "true", nodes=2), key="nodes")
    assert list((tmp_path / "runs").glob("run-*")) == []


@pytest.mark.model
def test_processes_of_torchrun_know_their_rank_and_are_killed_together(
    launcher: Launcher, tmp_path: Path
) -> None:
    script = (
        "trap '' TERM; echo $$ > rank-$RANK.part; echo rank $RANK of $WORLD_SIZE, $LOCAL_RANK; "
        "mv rank-$RANK.part rank-$RANK; while :; do sleep 0.1; done"
    )
    handle = launcher.submit(shell(tmp_path, script, processes_per_node=2), key="torchrun")
    ranks = [tmp_path / f"rank-{number}" for number in range(2)]
    until(lambda: all(path.exists() for path in ranks) or launcher.poll(handle).is_finished)
    said = launcher.logs(handle).text
    assert "rank 0 of 2, 0" in said
    assert "rank 1 of 2, 1" in said
    pids = [int(path.read_text()) for path in ranks]
    assert all(map(find, pids))
    began = time.monotonic()
    launcher.cancel(handle, grace_seconds=0.5)
    assert time.monotonic() - began < 10
    assert [find(pid) for pid in pids] == [None, None]
    assert launcher.poll(handle).reason == "cancelled"

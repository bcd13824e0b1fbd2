"""A real Slurm of two nodes: ranks, repeated submissions, nodes that die, refusals."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.errors import InvalidConfiguration, InvalidRequest
from slurm_cluster import Cluster, Unavailable, running_cluster
from training.launchers import Handle, Launcher, Spec, Status, open_launcher
from training.launchers._batch import SCRIPT
from waiting import until

Ended = Callable[[Launcher, Handle], Status]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    try:
        with running_cluster() as cluster:
            yield cluster
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture
def launcher(cluster: Cluster, tmp_path: Path) -> Iterator[Launcher]:
    """What is left of its runs keeps no node from the next test."""
    configuration = str(cluster.configuration)
    yield open_launcher("slurm", folder=tmp_path / "runs", configuration=configuration)
    cluster.free()


def shell(folder: Path, script: str, **fields: Any) -> Spec:
    return Spec(("sh", "-c", script), str(folder), **{"grace_seconds": 1.0, **fields})


def state_of(tmp_path: Path, handle: Handle) -> Path:
    return tmp_path / "runs" / handle.partition(":")[2]


def test_nodes_know_their_rank_and_where_they_meet(
    launcher: Launcher, tmp_path: Path, ended: Ended
) -> None:
    script = (
        'echo "$SLURMD_NODENAME: $RANK of $WORLD_SIZE, $LOCAL_RANK at $MASTER_ADDR:$MASTER_PORT"'
    )
    handle = launcher.submit(shell(tmp_path, script, nodes=2), key="ranks")
    assert ended(launcher, handle).exit_code == 0
    lines = sorted(launcher.logs(handle).text.splitlines())
    ports = {re.sub(r".*:", "", line) for line in lines}
    assert len(ports) == 1
    assert [re.sub(r":\d+$", "", line) for line in lines] == [
        "one: 0 of 2, 0 at 127.0.0.1",
        "two: 1 of 2, 0 at 127.0.0.1",
    ]


def test_torchrun_is_told_the_same_on_every_node(
    launcher: Launcher, cluster: Cluster, tmp_path: Path, ended: Ended
) -> None:
    shown = ("sh", "-c", 'env | grep ^PET_ | sort; shift; exec "$@"', "torchrun")
    several = open_launcher(
        "slurm",
        folder=tmp_path / "runs",
        configuration=str(cluster.configuration),
        torchrun=shown,
    )
    spec = shell(tmp_path, "true", nodes=2, processes_per_node=3)
    handle = several.submit(spec, key="torchrun")
    assert ended(several, handle).exit_code == 0
    said = several.logs(handle).text
    assert said.count("PET_NNODES=2\nPET_NODE_RANK=") == 2
    assert said.count("PET_NPROC_PER_NODE=3\n") == 2
    assert {"PET_NODE_RANK=0", "PET_NODE_RANK=1"} <= set(said.splitlines())


def test_submission_that_was_not_written_down_is_found(
    launcher: Launcher, cluster: Cluster, tmp_path: Path
) -> None:
    busy = [launcher.submit(shell(tmp_path, "sleep 600", cpus=8), key=f"busy {n}") for n in (0, 1)]
    until(lambda: all(launcher.poll(each).state == "running" for each in busy))
    spec = shell(tmp_path, "echo once >> count", cpus=8)
    handle = launcher.submit(spec, key="waiting")
    assert launcher.poll(handle).state == "queued"
    assert "PENDING" in launcher.poll(handle).message
    job = state_of(tmp_path, handle) / "job"
    number = job.read_text()
    job.unlink()  # as if the launcher had died between sbatch's answer and the record
    assert launcher.submit(spec, key="waiting") == handle
    assert job.read_text() == number
    waiting = cluster.call("squeue", "--noheader", "--states=PENDING", "--format=%i").split()
    assert waiting == [number.strip()]
    launcher.cancel(handle)
    assert launcher.poll(handle).reason == "cancelled"
    for each in busy:
        launcher.cancel(each, grace_seconds=0)
    assert not (tmp_path / "count").exists()


def test_of_two_jobs_of_one_run_the_first_to_start_runs(cluster: Cluster, tmp_path: Path) -> None:
    text = SCRIPT.format(state=tmp_path, folder=tmp_path, command="sh -c 'echo once >> count'")
    (tmp_path / "script").write_text(text)
    submit = ("sbatch", "--parsable", f"--output={tmp_path}/log", str(tmp_path / "script"))
    numbers = {cluster.call(*submit).strip() for _ in range(2)}
    assert len(numbers) == 2
    states = ("squeue", "--noheader", "--states=PENDING,RUNNING,COMPLETING", "--format=%i")
    until(lambda: not numbers & set(cluster.call(*states).split()))
    assert (tmp_path / "count").read_text() == "once\n"
    assert (tmp_path / "job").read_text().strip() in numbers
    assert (tmp_path / "ended").read_text().startswith("0 ")


def test_run_that_somebody_cancels_by_other_means_is_told_as_cancelled(
    launcher: Launcher, cluster: Cluster, tmp_path: Path, ended: Ended
) -> None:
    handle = launcher.submit(shell(tmp_path, "sleep 600"), key="by other means")
    until(lambda: launcher.poll(handle).state == "running")
    cluster.call("scancel", (state_of(tmp_path, handle) / "job").read_text().strip())
    status = ended(launcher, handle)
    assert (status.state, status.reason) == ("failed", "cancelled")


def test_number_that_now_belongs_to_another_job_is_not_taken_for_the_run(
    launcher: Launcher, tmp_path: Path
) -> None:
    mine = launcher.submit(shell(tmp_path, "sleep 600"), key="mine")
    theirs = launcher.submit(shell(tmp_path, "sleep 600"), key="theirs")
    until(lambda: launcher.poll(theirs).state == "running")
    state = state_of(tmp_path, mine)
    (state / "job").write_text((state_of(tmp_path, theirs) / "job").read_text())
    launcher.cancel(mine)
    assert launcher.poll(mine).reason == "lost"
    assert launcher.poll(theirs).state == "running"


def test_end_is_remembered_when_slurm_has_forgotten_it(
    launcher: Launcher, tmp_path: Path, ended: Ended
) -> None:
    handle = launcher.submit(shell(tmp_path, "exit 9"), key="forgotten")
    status = ended(launcher, handle)
    state = state_of(tmp_path, handle)
    (state / "job").write_text("999999\n")
    assert launcher.poll(handle) == status
    (state / "status.json").unlink()
    assert launcher.poll(handle).exit_code == 9
    for name in ("status.json", "ended"):
        (state / name).unlink()
    lost = launcher.poll(handle)
    assert (lost.state, lost.exit_code, lost.reason) == ("failed", None, "lost")
    assert "forgotten job 999999" in lost.message


def test_what_slurm_refuses_is_told_in_its_words_and_can_be_submitted_again(
    launcher: Launcher, cluster: Cluster, tmp_path: Path, ended: Ended
) -> None:
    elsewhere = open_launcher(
        "slurm",
        folder=tmp_path / "runs",
        configuration=str(cluster.configuration),
        options=["--partition=no-such"],
    )
    spec = shell(tmp_path, "true")
    with pytest.raises(InvalidRequest, match="Slurm refuses the run.*invalid partition"):
        elsewhere.submit(spec, key="refused")
    assert ended(launcher, launcher.submit(spec, key="refused")).state == "succeeded"


def test_missing_commands_are_named(
    launcher: Launcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InvalidConfiguration, match="'squeue' is not on the PATH"):
        launcher.submit(shell(tmp_path, "true"), key="nowhere")


@pytest.mark.slow
def test_run_of_a_node_that_died_is_lost(
    launcher: Launcher, cluster: Cluster, tmp_path: Path, ended: Ended
) -> None:
    handle = launcher.submit(shell(tmp_path, 'echo "$SLURMD_NODENAME"; sleep 600'), key="dies")
    until(lambda: launcher.logs(handle).text)
    node = launcher.logs(handle).text.strip()
    os.killpg(cluster.nodes[node].pid, signal.SIGKILL)
    status = ended(launcher, handle)
    assert (status.state, status.reason) == ("failed", "lost")
    assert "NODE_FAIL" in status.message

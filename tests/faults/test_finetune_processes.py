"""Fine-tunings as processes: asked to go, out of disk, killed, and two that train one adapter."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trained import ROOT, ragstone, write_task

pytest.importorskip("trl")
SECONDS = 240
WORKER = Path(__file__).with_name("ranks_worker.py")
TORCHRUN = (
    *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
    *("--no-python", sys.executable, "-c", "from service.cli import main; main()"),
)


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=SECONDS)
    return process.returncode, out, err


def trained(spec: Path, *, launch: tuple[str, ...] = ()) -> dict[str, Any]:
    words = ("train", "run", str(spec), "--no-smoke", "--json")
    code, out, err = finish(ragstone(*words, data=spec.parent / "data", launch=launch))
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob("tuning/*/checkpoints/checkpoint-*/seal.json"))


def wait_for_checkpoint(folder: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + SECONDS
    while not checkpoints(folder):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def registered(folder: Path) -> list[Any]:
    code, out, err = finish(ragstone("adapters", "list", "--json", data=folder))
    assert code == 0, err
    found: list[Any] = json.loads(out)
    return found


STEPS = {"schedule.steps": 30, "schedule.saving": {"every_steps": 5}}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> float:
    """The last loss of a run that nobody ended."""
    spec = write_task(tmp_path_factory.mktemp("whole"), {"register": {"name": "zs"}, **STEPS})
    return float(trained(spec)["last_loss"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_ended_goes_on_to_the_same_loss(
    tmp_path: Path, number: signal.Signals, unbroken: float
) -> None:
    spec = write_task(tmp_path, {"register": {"name": "zs"}, **STEPS})
    process = ragstone("train", "run", str(spec), "--no-smoke", data=tmp_path / "data")
    wait_for_checkpoint(tmp_path / "data", process)
    process.send_signal(number)
    code, _, err = finish(process)
    assert code == (143 if number == signal.SIGTERM else -9), err
    if number == signal.SIGTERM:
        assert "run it again to go on" in err
    again = trained(spec)
    assert again["last_loss"] == pytest.approx(unbroken, abs=1e-5)
    assert again["adapter"] == "adapter/zs@v1", "and nothing was registered before"


def test_a_full_disk_fails_the_run_clearly_and_with_room_it_goes_on(tmp_path: Path) -> None:
    spec = write_task(tmp_path, {"register": {"name": "zs"}, "schedule.steps": 4})
    data = tmp_path / "data"
    assert registered(data) == []
    size = max(path.stat().st_size for path in data.glob("*.db*")) // 1024
    rank = {"method.adapter": {"type": "lora", "r": 64, "alpha": 64}}
    spec = write_task(tmp_path, {"register": {"name": "zs"}, "schedule.steps": 4, **rank})
    # The optimiser's state of this rank is larger than the database, and than the limit.
    process = ragstone(
        "train", "run", str(spec), "--no-smoke", data=data, limit_kilobytes=size + 300
    )
    code, _, err = finish(process)
    assert code == 1
    assert "could not be written" in err
    assert "Traceback" not in err
    assert registered(data) == []
    assert trained(spec)["adapter"] == "adapter/zs@v1"


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """What one process makes of a few steps, and the folder it worked in."""
    folder = tmp_path_factory.mktemp("alone")
    return trained(write_task(folder, SHARED)), folder


SHARED = {
    "register": {"name": "zs"},
    "data.eval": {"rows": "eval.jsonl"},
    "schedule.steps": 6,
    "schedule.rows_per_device": 2,
}


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_processes_train_one_adapter_and_lose_what_one_process_loses(
    tmp_path: Path, strategy: str, alone: tuple[dict[str, Any], Path]
) -> None:
    one, folder = alone
    mesh = {"devices_per_node": 2, "strategy": strategy}
    both = trained(write_task(tmp_path, {**SHARED, "parallelism": mesh}), launch=TORCHRUN)
    assert both["steps"] == one["steps"] == 6
    for name in ("first_loss", "last_loss", "eval_loss_before", "eval_loss_after"):
        assert both[name] == pytest.approx(one[name], abs=1e-4)
    assert both["adapter"] == "adapter/zs@v1"
    ours, theirs = weights(tmp_path), weights(folder)
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        np.testing.assert_allclose(weight, theirs[name], atol=1e-4)


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.numpy import load_file

    (path,) = folder.glob("data/tuning/*/adapter/adapter_model.safetensors")
    return load_file(path)


def test_a_run_of_two_processes_that_is_asked_to_go_goes_on_in_one(
    tmp_path: Path, unbroken: float
) -> None:
    changes = {"register": {"name": "zs"}, **STEPS}
    mesh = {"devices_per_node": 2, "strategy": "fsdp2"}
    spec = write_task(tmp_path, {**changes, "parallelism": mesh})
    data = tmp_path / "data"
    words = ("train", "run", str(spec), "--no-smoke")
    process = ragstone(*words, data=data, launch=TORCHRUN)
    wait_for_checkpoint(data, process)
    process.send_signal(signal.SIGTERM)
    code, _, _ = finish(process)
    assert code != 0
    assert registered(data) == []
    again = trained(write_task(tmp_path, changes))
    assert again["steps"] == 30
    assert again["last_loss"] == pytest.approx(unbroken, abs=1e-4)
    assert len(list(data.glob("tuning/*"))) == 1, "it is the same run"


def test_copies_of_a_weight_move_together_or_are_found_out() -> None:
    for mode, same in (("shares", True), ("alone", False)):
        run = subprocess.run(
            [*TORCHRUN[:-3], sys.executable, str(WORKER), mode],
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            capture_output=True, text=True, timeout=SECONDS, check=True,
        )  # fmt: skip
        told = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]
        assert {each["rank"] for each in told} == {0, 1}
        # Both begin at 1; rows of 1 and 2 here, of 3 and 4 there, have the mean gradient 5.
        assert {tuple(each["weight"]) for each in told} == {(-4.0, -4.0) if same else (-2.0, -2.0)}
        for each in told:
            assert each["said"] == "same" if same else "process 1 holds another" in each["said"]

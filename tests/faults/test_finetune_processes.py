"""Fine-tunings as processes: asked to go, out of disk, killed, and two that train one adapter."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from trained import ragstone, write_task

pytest.importorskip("trl")
SECONDS = 240
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


def test_two_processes_train_one_adapter_and_lose_what_one_process_loses(tmp_path: Path) -> None:
    changes = {"register": {"name": "zs"}, "schedule.steps": 6, "schedule.rows_per_device": 4}
    alone = trained(write_task(tmp_path / "alone", changes))
    spec = write_task(tmp_path / "both", {**changes, "parallelism": {"devices_per_node": 2}})
    both = trained(spec, launch=TORCHRUN)
    assert both["steps"] == alone["steps"] == 6
    assert both["first_loss"] == pytest.approx(alone["first_loss"], abs=1e-4)
    assert both["last_loss"] == pytest.approx(alone["last_loss"], abs=1e-4)
    assert both["adapter"] == "adapter/zs@v1"

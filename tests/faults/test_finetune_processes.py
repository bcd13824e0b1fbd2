"""Fine-tunings as processes: asked to go, out of disk, killed, and two that train one adapter."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from infra.settings import load_settings
from scripted_suites import ANSWERS, write_answers
from service.models import tuning
from service.wiring import Components
from trained import (
    ANSWER,
    ROOT,
    only_third_parties_warn,
    ragstone,
    write_preferences,
    write_shared,
    write_task,
)
from training.finetune import Outcome, finetune
from training.run_folder import RunFolder
from training.spec import read
from tuning import pair, write_rows

pytest.importorskip("trl")
pytestmark = [*only_third_parties_warn, pytest.mark.usefixtures("light_training")]
SECONDS = 240
WORKER = Path(__file__).with_name("ranks_worker.py")
COMMAND = ("-c", "from service.cli import main; main()")
STEPS = {"register": {"name": "zs"}, "schedule.steps": 20, "schedule.saving": {"every_steps": 4}}


def torchrun(processes: int) -> tuple[str, ...]:
    """Return what a program is started with by several processes."""
    many = ("--standalone", "--nproc-per-node", str(processes), "--no-python", sys.executable)
    return (sys.executable, "-m", "torch.distributed.run", *many)


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=SECONDS)
    return process.returncode, out, err


@contextmanager
def opened(data: Path) -> Iterator[Components]:
    parts = Components(load_settings(data_folder=data))
    yield parts
    parts.close()


def trained(spec: Path) -> Outcome:
    """Train in this process what `ragstone train run` would, and in the same folder."""
    asked = read(spec)
    with opened(spec.parent / "data") as parts:
        around = replace(tuning.around(parts, spec.parent, note=lambda _: None), smokes=False)
        return finetune(asked, tuning.folder_of(parts, asked), around)


def by_ranks(mode: str, *words: str, processes: int = 2) -> list[Any]:
    """Return what processes of the worker say, each in lines of JSON."""
    run = subprocess.run(
        [*torchrun(processes), str(WORKER), mode, *words],
        env={
            **os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
        },
        capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]


def checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob("tuning/*/checkpoints/checkpoint-*/seal.json"))


def wait_for_checkpoint(folder: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + SECONDS
    while not checkpoints(folder):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def registered(folder: Path) -> list[str]:
    with opened(folder) as parts:
        return [str(each) for each in parts.artifacts.names("adapter")]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> float:
    """The last loss of a run that nobody ended."""
    return trained(write_task(tmp_path_factory.mktemp("whole"), STEPS)).last_loss


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_ended_goes_on_to_the_same_loss(
    tmp_path: Path, number: signal.Signals, unbroken: float
) -> None:
    spec = write_task(tmp_path, STEPS)
    process = ragstone("train", "run", str(spec), "--no-smoke", data=tmp_path / "data")
    wait_for_checkpoint(tmp_path / "data", process)
    process.send_signal(number)
    code, _, err = finish(process)
    assert code == (143 if number == signal.SIGTERM else -9), err
    if number == signal.SIGTERM:
        assert "run it again to go on" in err
    again = trained(spec)
    assert again.last_loss == pytest.approx(unbroken, abs=1e-5)
    assert again.adapter == "adapter/zs@v1", "and nothing was registered before"


def test_a_full_disk_fails_the_run_clearly_and_with_room_it_goes_on(tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert registered(data) == []
    size = max(path.stat().st_size for path in data.glob("*.db*")) // 1024
    rank = {"method.adapter": {"type": "lora", "r": 256, "alpha": 256}}
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
    assert trained(spec).adapter == "adapter/zs@v1"


def write_uneven(folder: Path, method: str, changes: Mapping[str, Any] | None = None) -> Path:
    """Write preferences, and five pairs held out, which two processes cannot share evenly."""
    spec = write_preferences(folder, method, changes)
    odd = [pair(f"And {n}?", f"{ANSWER} {n}", f"Else {n}") for n in range(5)]
    write_rows(folder / "eval.jsonl", odd)
    return spec


SHARED = {
    "data.eval": {"rows": "eval.jsonl"}, "schedule.steps": 4, "schedule.rows_per_device": 2,
}  # fmt: skip
TWO: dict[str, Callable[..., Path]] = {
    "ddp": write_shared, "fsdp2": write_shared, "tensor": write_shared,
    "context": write_shared,
    "dpo": partial(write_uneven, method="dpo"),
    "reward": partial(write_uneven, method="reward"),
    "kto": partial(write_preferences, method="kto"),
}  # fmt: skip
"""What two processes train, and who writes it; preferences by `ddp`."""
DIVIDED = {"fsdp2": {}, "tensor": {"tensor": 2}, "context": {"context": 2}}
FOUR = {
    "copies": {"replicate": 2, "shard": 2},
    "grid": {"shard": 2, "tensor": 2},
    "stretches": {"shard": 2, "context": 2},
}  # fmt: skip
"""What four processes train, two of each machine: they are more than there may be here."""
ELSEWHERE = {"launcher": "slurm", "device": "cpu"}
SAME = ("first_loss", "last_loss", "eval_loss_before", "eval_loss_after")


SMOKED = {"ddp": True, "fsdp2": False, "tensor": False, "context": True}
"""What is tried before it is trained, and whether each process has a whole base."""
FAULTS = {
    "no_sharing": "fsdp2", "sums": "fsdp2", "forgets": "fsdp2", "strays": "ddp",
    "no_number": "ddp", "apart": "fsdp2",
}  # fmt: skip
"""Mistakes of the worker's, and how the processes train that it plants them in."""


def mesh_of(name: str) -> dict[str, Any]:
    strategy = "fsdp2" if name in DIVIDED else "ddp"
    return {"devices_per_node": 2, "strategy": strategy, **DIVIDED.get(name, {})}


def last_norm(folder: Path) -> float:
    """Return the norm of the last step's gradients: Adam moves alike by any multiple of them."""
    marks = RunFolder(folder).measurements.read()
    return [each.metrics["grad_norm"] for each in marks if "grad_norm" in each.metrics][-1]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders of what two processes trained, all of it one after the other."""
    folder = tmp_path_factory.mktemp("both")
    for name, write in TWO.items():
        (folder / name).mkdir()
        write(folder / name, changes={**SHARED, "parallelism": mesh_of(name)})
    for fault, name in FAULTS.items():
        (folder / fault).mkdir()
        write_shared(folder / fault, {**SHARED, "parallelism": mesh_of(name)})
    words = [f"{'smoked' if name in SMOKED else 'at once'}:{folder / name}" for name in TWO]
    told = by_ranks("trains", *words, *(f"{fault}:{folder / fault}" for fault in FAULTS))
    (folder / "told.json").write_text(json.dumps(told), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders of what four processes trained."""
    folder = tmp_path_factory.mktemp("four")
    for name, sizes in FOUR.items():
        (folder / name).mkdir()
        mesh = {"nodes": 2, "devices_per_node": 2, "strategy": "fsdp2", **sizes}
        write_shared(folder / name, {**SHARED, "parallelism": mesh, "runtime": ELSEWHERE})
    by_ranks("trains", *(f"at once:{folder / name}" for name in FOUR), processes=4)
    return folder


def test_four_processes_that_share_shards_and_matrices_lose_what_one_process_loses(
    tmp_path: Path, four: Path
) -> None:
    one = trained(write_shared(tmp_path, SHARED))
    theirs = load_file(Path(one.adapter) / "adapter_model.safetensors")
    for name in FOUR:
        found = json.loads((four / name / "run" / "outcome.json").read_text())
        for figure in SAME:
            assert found[figure] == pytest.approx(getattr(one, figure), abs=1e-4), name
        norm = last_norm(Path(one.adapter).parent)
        assert last_norm(four / name / "run") == pytest.approx(norm, rel=1e-3), name
        ours = load_file(four / name / "run" / "adapter" / "adapter_model.safetensors")
        assert ours.keys() == theirs.keys()
        for key, weight in ours.items():
            np.testing.assert_allclose(weight, theirs[key], atol=1e-4, err_msg=name)


@pytest.mark.parametrize("name", TWO)
def test_two_processes_train_one_adapter_and_lose_what_one_process_loses(
    tmp_path: Path, name: str, both: Path
) -> None:
    one = trained(TWO[name](tmp_path, changes=SHARED))
    two = json.loads((both / name / "run" / "outcome.json").read_text())
    assert two["steps"] == one.steps == 4
    # What a good or bad answer is held against is a figure of a whole batch, here of both.
    same = SAME[::2] if name == "kto" else SAME
    for figure in same:
        assert two[figure] == pytest.approx(getattr(one, figure), abs=1e-4)
    ours, theirs = (
        load_file(folder / "adapter_model.safetensors")
        for folder in (both / name / "run" / "adapter", Path(one.adapter))
    )
    assert ours.keys() == theirs.keys()
    for key, weight in ours.items():
        assert weight.shape == theirs[key].shape
        if name != "kto":
            np.testing.assert_allclose(weight, theirs[key], atol=1e-4)
    if name != "kto":
        norm = last_norm(Path(one.adapter).parent)
        assert last_norm(both / name / "run") == pytest.approx(norm, rel=1e-3)


def told(both: Path, name: str, rank: int) -> list[str]:
    """Return what one process said of one training."""
    lines = json.loads((both / "told.json").read_text(encoding="utf-8"))
    (notes,) = (each["notes"] for each in lines if (each["folder"], each["rank"]) == (name, rank))
    return [str(note) for note in notes]


@pytest.mark.parametrize("name", SMOKED)
def test_two_processes_try_what_they_train_and_the_first_one_says_what_came_of_it(
    name: str, both: Path
) -> None:
    tried = [note for note in told(both, name, 0) if note.startswith("smoke")]
    checks = ["initial_loss", "only_adapter", "memory", "accumulation", "resume", "same_adapter"]
    if SMOKED[name]:
        checks.insert(4, "overfit")
    assert [note.split()[1] for note in tried] == [f"{each}:" for each in checks]
    assert all(": ok" in note for note in tried), tried
    (memory,) = (note for note in tried if "memory" in note)
    found = re.search(r"([\d.]+) of the estimate, in process [01] of 2", memory)
    assert found is not None, memory
    assert float(found[1]) == pytest.approx(1, abs=0.15)
    assert not [note for note in told(both, name, 1) if note.startswith("smoke")]
    assert not list((both / name / "run").glob("smoke-*"))


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("no_sharing", "same_adapter (Step 1: process 1 holds another adapter than process 0"),
        ("sums", "accumulation (off by 1, at most 0.001)"),
        ("forgets", "resume (the optimiser does not go on with exp_avg, exp_avg_sq, step)"),
        ("strays", "only_adapter (process 1: 1 tensors of the base moved, such as 'base_model."),
    ],
)
def test_a_mistake_of_two_processes_ends_both_before_they_train_and_is_said_once(
    fault: str, words: str, both: Path
) -> None:
    *_, first = told(both, fault, 0)
    (second,) = told(both, fault, 1)
    assert first.startswith(f"Aborted: 'sums' would not train well: {words}"), first
    assert second == first.replace("Aborted", "SaidByFirst")
    assert sorted(each.name for each in (both / fault / "run").iterdir()) == ["lock.json"]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("no_number", "Step 1: the loss is nan"),
        ("apart", "Step 1: process 1 holds another adapter than process 0"),
    ],
)
def test_what_ends_the_training_of_all_processes_is_said_once(
    fault: str, words: str, both: Path
) -> None:
    first, second = (told(both, fault, rank)[-1] for rank in (0, 1))
    assert first.startswith(f"Aborted: {words}"), first
    assert second == first.replace("Aborted", "SaidByFirst")
    assert not (both / fault / "run" / "adapter").exists()


def test_a_process_that_fails_alone_ends_the_one_that_waits_for_it(tmp_path: Path) -> None:
    spec = write_task(tmp_path, {"parallelism": mesh_of("ddp"), "schedule.steps": 2})
    launch = (*torchrun(2), str(WORKER), "alone")
    code, _, err = finish(
        ragstone("train", "run", str(spec), data=tmp_path / "data", launch=launch)
    )
    assert code != 0
    said = "would not train well: only_adapter (process 1: The device has not enough memory; lower"
    assert err.count(said) == 1, err
    assert err.count("smoke initial_loss: ok") == 1, err
    assert not checkpoints(tmp_path / "data")


def test_a_run_of_two_processes_that_is_asked_to_go_goes_on_in_one(
    tmp_path: Path, unbroken: float
) -> None:
    mesh = {"devices_per_node": 2, "strategy": "fsdp2"}
    spec = write_task(tmp_path, {**STEPS, "parallelism": mesh})
    data = tmp_path / "data"
    words = ("train", "run", str(spec), "--no-smoke")
    process = ragstone(*words, data=data, launch=(*torchrun(2), *COMMAND))
    wait_for_checkpoint(data, process)
    process.send_signal(signal.SIGTERM)
    code, _, err = finish(process)
    assert code != 0
    assert err.count("run it again to go on from there") == 1, err
    assert registered(data) == []
    again = trained(write_task(tmp_path, STEPS))
    assert again.steps == STEPS["schedule.steps"]
    assert again.last_loss == pytest.approx(unbroken, abs=1e-4)
    assert len(list(data.glob("tuning/*"))) == 1, "it is the same run"


def test_suites_of_a_base_in_shards_are_asked_and_their_verdict_is_registered(
    tmp_path: Path,
) -> None:
    write_answers(tmp_path, ANSWER)
    mesh = {"devices_per_node": 2, "strategy": "fsdp2"}
    spec = write_task(tmp_path, {"register": {"name": "zs"}, **ANSWERS, "parallelism": mesh})
    words, data = ("train", "run", str(spec), "--no-smoke"), tmp_path / "data"
    code, _, err = finish(ragstone(*words, data=data, launch=(*torchrun(2), *COMMAND)))
    assert code == 0, err
    with opened(data) as parts:
        found = parts.artifacts.resolve("adapter/zs@candidate")
        assert found.metadata["verdict"] == "pass"


@pytest.fixture(scope="module")
def moved() -> list[Any]:
    """What two processes say that move a weight and wait for each other."""
    return by_ranks("moves")


def test_copies_of_a_weight_move_together_or_are_found_out(moved: list[Any]) -> None:
    told = [each for each in moved if "shares" in each]
    assert {(each["rank"], each["shares"]) for each in told} == {
        (rank, shares) for rank in (0, 1) for shares in (True, False)
    }
    for each in told:
        # Both begin at 1; rows of 1 and 2 here, of 3 and 4 there, have the mean gradient 5.
        assert each["weight"] == ([-4.0, -4.0] if each["shares"] else [-2.0, -2.0])
        assert each["said"] == "same" if each["shares"] else "process 1 holds" in each["said"]


def test_a_process_that_says_nothing_is_not_waited_for_for_ever(moved: list[Any]) -> None:
    told = sorted((each for each in moved if "done" in each), key=lambda each: each["rank"])
    assert told == [{"rank": n, "done": [True, False], "are_whole": False} for n in (0, 1)]


def test_what_the_first_process_refuses_all_know_and_it_alone_says(moved: list[Any]) -> None:
    told = {each["rank"]: (each["kind"], each["said"]) for each in moved if "kind" in each}
    assert told == {0: ("InvalidRequest", "no"), 1: ("SaidByFirst", "no")}

"""A fine-tuning from its specification to a registered adapter, and what must never become one."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infra.errors import Conflict, InvalidRequest
from infra.settings import load_settings
from service.gateway.adapter_files import Base, check, fetch
from service.models import tuning
from service.wiring import Components
from trained import only_third_parties_warn, planted, write_task
from training import ranks, smoke, trainer
from training.callbacks import Watch
from training.finetune import Outcome, finetune
from training.locking import read_lock
from training.sentinel import Aborted, Sentinel
from training.spec import read
from training.specification.schedule import Abort
from tuning import chat, write_rows

pytest.importorskip("trl")
pytestmark = [*only_third_parties_warn, pytest.mark.usefixtures("light_training")]
REGISTERED = {"register": {"name": "zs"}}


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Components]:
    components = Components(load_settings(data_folder=tmp_path / "data"))
    yield components
    components.close()


def run(parts: Components, spec: Path, folder: Path, **changes: Any) -> Outcome:
    around = tuning.around(parts, spec.parent, note=lambda _: None)
    return finetune(read(spec), folder, replace(around, **{"smokes": False, **changes}))


class Broken(Exception):
    """A run is broken off."""


@pytest.fixture
def uncompiled_graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run the graphs that torch.compile captures as they are: C++ of them takes minutes."""
    import torch
    from torch._dynamo.backends.registry import lookup_backend

    run_as_they_are = lookup_backend("aot_eager")
    monkeypatch.setattr(
        "torch._inductor.compile_fx.compile_fx",
        lambda graph, inputs, **_: run_as_they_are(graph, inputs),
    )
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def adapters(parts: Components) -> list[str]:
    return [str(each) for each in parts.artifacts.names("adapter")]


def test_an_adapter_is_trained_verified_registered_and_tracked(
    parts: Components, tmp_path: Path
) -> None:
    spec = write_task(tmp_path, {**REGISTERED, "data.eval": {"rows": "eval.jsonl"}})
    told: list[Any] = []
    notes: list[str] = []
    evaluated: defaultdict[int, list[float]] = defaultdict(list)
    outcome = run(
        parts, spec, tmp_path / "run", tell=told.append, note=notes.append, smokes=True,
        evaluated=lambda step, found: evaluated[step].append(found["eval_loss"]),
    )  # fmt: skip
    assert outcome.adapter == "adapter/zs@v1"
    tried = [note.split()[1] for note in notes if note.startswith("smoke")]
    assert tried == [
        *("initial_loss:", "only_adapter:", "memory:", "accumulation:", "overfit:", "resume:")
    ]
    assert outcome.last_loss < 0.2 * outcome.first_loss
    assert outcome.eval_loss_before is not None
    assert outcome.eval_loss_after is not None
    assert outcome.eval_loss_after < 0.2 * outcome.eval_loss_before
    assert outcome.logit_difference < 1e-4
    assert [each.step for each in told] == list(range(1, outcome.steps + 1))
    assert list(evaluated) == list(range(0, outcome.steps + 1, 2)), "each checkpoint once"
    assert evaluated[outcome.steps] == [outcome.eval_loss_after]
    assert told[-1].seconds_left == 0
    assert told[-1].tokens_per_second > 0

    assert parts.artifacts.find("adapter/zs@candidate").digest == outcome.digest
    adapter = fetch(parts.artifacts, "adapter/zs@candidate", tmp_path / "adapters")
    check(adapter, Base(names=frozenset({str(tmp_path / "base")}), max_rank=8))
    assert adapter.rank == 8

    assert outcome.run is not None
    assert parts.runs.get(outcome.run).state == "finished"
    names = {each.name: each.last_step for each in parts.runs.series(outcome.run)}
    assert names["train/loss"] == names["eval/loss"] == outcome.steps
    assert names["train/tokens_per_second"] == names["train/memory_gib"] == outcome.steps
    lock = read_lock(tmp_path / "run" / "lock.json")
    metadata = parts.artifacts.resolve("adapter/zs").metadata
    assert metadata["base.model"] == lock.digests["base.model"]

    before = len(told)
    assert run(parts, spec, tmp_path / "run", tell=told.append) == outcome
    assert len(told) == before, "a run that ended well is not trained again"


@pytest.mark.parametrize(
    "adapter",
    [
        {"type": "lora", "r": 8, "dora": True, "targets": ["q_proj", "v_proj", "up_proj"]},
        {"type": "lora", "r": 8, "rslora": True},
        {"type": "lora", "r": 8, "trainable_tokens": [5, 6]},
        {"type": "lora", "r": 8, "targets": ["q_proj"], "modules_to_save": ["up_proj"]},
        {"type": "osf", "effective_rank": 8},
        {"type": "peft", "config": {"peft_type": "VERA", "r": 8, "target_modules": ["q_proj"]}},
        {"type": "peft", "config": {"peft_type": "IA3", "target_modules": ["v_proj", "down_proj"],
                                    "feedforward_modules": ["down_proj"]}},
        {"type": "peft", "config": {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 4}},
    ],
    ids=["dora", "rslora", "tokens", "modules", "osf", "vera", "ia3", "prompt"],
)  # fmt: skip
def test_every_kind_of_adapter_is_tried_trained_and_read_back(
    adapter: dict[str, Any], parts: Components, tmp_path: Path
) -> None:
    changes = {**REGISTERED, "schedule.steps": 3, "method.adapter": adapter}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(smoke, "CHECKS", (smoke.only_adapter, smoke.accumulation, smoke.resume))
        outcome = run(parts, write_task(tmp_path, changes), tmp_path / "run", smokes=True)
    assert outcome.adapter == "adapter/zs@v1"
    assert outcome.last_loss < outcome.first_loss
    assert outcome.logit_difference < 1e-4


def test_adapters_of_stored_models_know_their_base(parts: Components, tmp_path: Path) -> None:
    write_task(tmp_path)
    base = parts.artifacts.put(tmp_path / "base", "model/tiny")
    spec = write_task(tmp_path, {**REGISTERED, "schedule.steps": 2, "base.model": "model/tiny@v1"})
    outcome = run(parts, spec, tmp_path / "run")
    parents = parts.artifacts.resolve(outcome.adapter).parents
    assert [(each.role, each.digest) for each in parents] == [("base", base.digest)]
    adapter = fetch(parts.artifacts, outcome.adapter, tmp_path / "adapters")
    check(adapter, Base(names=frozenset(), digest=base.digest))


def test_a_nan_ends_the_run_at_its_step_and_it_goes_on_without_the_fault(
    parts: Components, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"schedule.saving": {"every_steps": 2}, "data.eval": {"rows": "eval.jsonl"}}
    spec = write_task(tmp_path, {**REGISTERED, "schedule.steps": 7, **changes})
    steps: list[int] = []
    evaluated: list[int] = []
    with (
        planted(monkeypatch, step=5, value=float("nan")),
        pytest.raises(Aborted, match="Step 5: the loss is nan"),
    ):
        run(parts, spec, tmp_path / "run")
    assert adapters(parts) == []
    assert not (tmp_path / "run" / "adapter").exists()
    (failed,) = parts.runs.list()
    assert failed.state == "failed"
    assert "Step 5" in str(failed.exit_reason)
    outcome = run(
        parts, spec, tmp_path / "run",
        tell=lambda told: steps.append(told.step),
        evaluated=lambda step, _: evaluated.append(step),
    )  # fmt: skip
    assert steps[0] == 5, "from the checkpoint after step 4"
    assert evaluated == [6, 7], "neither the first step's nor the last checkpoint's again"
    assert outcome.eval_loss_before is not None
    assert outcome.adapter == "adapter/zs@v1"


def test_gone_on_with_it_ends_where_it_would_have_without_a_break(
    parts: Components, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = {"schedule.steps": 8, "schedule.saving": {"every_steps": 2}}
    spec = write_task(tmp_path, short)
    whole = run(parts, spec, tmp_path / "whole")
    with planted(monkeypatch, step=7, value=float("nan")), pytest.raises(Aborted):
        run(parts, spec, tmp_path / "broken")
    last = tmp_path / "broken" / "checkpoints" / "checkpoint-6" / "adapter_model.safetensors"
    damaged = bytearray(last.read_bytes())
    damaged[-1] ^= 1
    last.chmod(0o644)
    last.write_bytes(damaged)
    steps: list[int] = []
    again = run(parts, spec, tmp_path / "broken", tell=lambda told: steps.append(told.step))
    assert steps == [5, 6, 7, 8], "the damaged checkpoint after step 6 is passed over"
    assert again.last_loss == pytest.approx(whole.last_loss, abs=1e-6)


def test_what_passed_is_not_tried_again_by_the_same_plan(parts: Components, tmp_path: Path) -> None:
    def stop(_: Any) -> None:
        raise Broken

    def tried(spec: Path) -> list[str]:
        notes: list[str] = []
        with pytest.raises(Broken):
            run(parts, spec, tmp_path / "run", smokes=True, note=notes.append, tell=stop)
        return [note for note in notes if note.startswith("smoke")]

    spec = write_task(tmp_path, {"schedule.steps": 2})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(smoke, "CHECKS", (smoke.initial_loss,))
        patch.setattr(smoke, "_loss", lambda *_, **__: 0.0)
        with pytest.raises(Aborted, match="would not train well"):
            run(parts, spec, tmp_path / "run", smokes=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(smoke, "CHECKS", (smoke.initial_loss,))
        assert [note.split()[1] for note in tried(spec)] == ["initial_loss:"]
        assert tried(spec) == [
            "smoke checks: they passed before, by the same plan on the same device"
        ]
        narrow = write_task(tmp_path, {"schedule.steps": 2, "runtime": {"memory_gib": 8}})
        assert [note.split()[1] for note in tried(narrow)] == ["initial_loss:"]


def test_without_a_whole_checkpoint_it_begins_anew_and_ends_the_same(
    parts: Components, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = write_task(tmp_path, {"schedule.steps": 3, "schedule.saving": {"every_steps": 1}})
    whole = run(parts, spec, tmp_path / "whole")
    with planted(monkeypatch, step=3, value=float("nan")), pytest.raises(Aborted):
        run(parts, spec, tmp_path / "broken")
    states = list((tmp_path / "broken" / "checkpoints").glob("*/optimizer.pt"))
    assert len(states) == 2
    for state in states:
        state.write_bytes(state.read_bytes()[:-1])
    steps: list[int] = []
    again = run(parts, spec, tmp_path / "broken", tell=lambda told: steps.append(told.step))
    assert steps == [1, 2, 3]
    assert again.last_loss == pytest.approx(whole.last_loss, abs=1e-6)


@pytest.mark.usefixtures("uncompiled_graphs")
def test_a_compiled_run_that_was_broken_off_has_the_losses_of_one_that_is_not_compiled(
    parts: Components, tmp_path: Path
) -> None:
    from safetensors import safe_open
    from torch._dynamo.utils import counters

    short = {"schedule.steps": 4, "schedule.saving": {"every_steps": 2}}
    write_task(tmp_path)
    # Of one length, and one layer: each other shape is compiled anew.
    write_rows(tmp_path / "train.jsonl", [chat(f"Question {n}?", "ZZZ") for n in range(10, 42)])
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    (tmp_path / "base" / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 1}))
    losses: dict[int, float] = {}
    plain = run(
        parts, write_task(tmp_path, short), tmp_path / "plain",
        tell=lambda told: losses.update({told.step: told.loss}),
    )  # fmt: skip
    spec = write_task(tmp_path, {**short, "schedule.compile": True})
    steps: list[int] = []

    def stop_at_3(told: Any) -> None:
        steps.append(told.step)
        assert told.loss == pytest.approx(losses[told.step], abs=1e-4)
        if steps == [1, 2, 3]:
            raise Broken

    counters.clear()
    with pytest.raises(Broken):
        run(parts, spec, tmp_path / "run", tell=stop_at_3)
    outcome = run(parts, spec, tmp_path / "run", tell=stop_at_3)
    assert counters["stats"]["unique_graphs"] > 0, "graphs were captured"
    assert steps == [1, 2, 3, 3, 4]
    assert outcome.last_loss == pytest.approx(plain.last_loss, abs=1e-4)
    assert outcome.first_loss == pytest.approx(plain.first_loss, abs=1e-4)
    names = []
    for folder in ("plain", "run"):
        (file,) = (tmp_path / folder / "adapter").glob("*.safetensors")
        with safe_open(file, "numpy") as tensors:
            names.append(sorted(tensors.keys()))
    assert names[0] == names[1]


def test_rows_are_read_once(parts: Components, tmp_path: Path) -> None:
    from training import row_source
    from training.row_source import Rows

    spec = write_task(tmp_path, {"schedule.steps": 1, "data.eval": {"rows": "eval.jsonl"}})
    read_of: list[str] = []
    batches = Rows.batches

    def counted(rows: Rows) -> Any:
        read_of.append(rows.source)
        return batches(rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_source.Rows, "batches", counted)
        run(parts, spec, tmp_path / "run")
    assert sorted(read_of) == ["eval.jsonl", "train.jsonl"]


def test_an_adapter_that_loses_weights_on_its_way_to_the_disk_is_not_registered(
    parts: Components, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file, save_file

    from training import finetune as module

    spec = write_task(tmp_path, {**REGISTERED, "schedule.steps": 2})
    write = module._write

    def lossy(model: Any, draft: Path) -> None:
        write(model, draft)
        weights = load_file(draft / "adapter_model.safetensors")
        weights.popitem()
        save_file(weights, draft / "adapter_model.safetensors")

    with monkeypatch.context() as patch:
        patch.setattr(module, "_write", lossy)
        with pytest.raises(Aborted, match="1 weights of the adapter are missing"):
            run(parts, spec, tmp_path / "run")
    assert adapters(parts) == []


def test_a_loss_on_held_out_rows_that_grew_is_not_registered(
    parts: Components, tmp_path: Path
) -> None:
    changes = {"data.eval": {"rows": "eval.jsonl"}, "evaluate.max_eval_loss_ratio": 0.001}
    spec = write_task(tmp_path, {**REGISTERED, "schedule.steps": 2, **changes})
    with pytest.raises(Aborted, match="max_eval_loss_ratio"):
        run(parts, spec, tmp_path / "run")
    assert adapters(parts) == []


def test_a_task_that_fails_its_smoke_check_is_not_trained(
    parts: Components, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = write_task(tmp_path, REGISTERED)
    monkeypatch.setattr(smoke, "OVERFIT_STEPS", 2)
    with (
        planted(monkeypatch, step=1, value=float("nan")),
        pytest.raises(Aborted, match="would not train well: .*the loss is nan"),
    ):
        run(parts, spec, tmp_path / "run", smokes=True)
    assert adapters(parts) == []
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_folder_of_another_run_is_left_alone(parts: Components, tmp_path: Path) -> None:
    spec = write_task(tmp_path, {"schedule.steps": 2})
    run(parts, spec, tmp_path / "run")
    changed = write_task(tmp_path, {"schedule.steps": 3})
    with pytest.raises(Conflict, match="another spec"):
        run(parts, changed, tmp_path / "run")


def test_a_folder_in_which_another_process_trains_is_left_alone(
    parts: Components, tmp_path: Path
) -> None:
    spec = write_task(tmp_path, {"schedule.steps": 2})
    refused: list[int] = []

    def again(told: Any) -> None:
        with pytest.raises(Conflict, match="Another process trains in"):
            run(parts, spec, tmp_path / "run")
        refused.append(told.step)

    run(parts, spec, tmp_path / "run", tell=again)
    assert refused == [1, 2]


def test_a_checkpoint_that_only_the_first_process_sees_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "checkpoint-4"
    monkeypatch.setattr(ranks, "told_by_first", lambda _: elsewhere)
    with pytest.raises(InvalidRequest, match="is not on this machine"):
        trainer.run(None, tmp_path, watch=Watch(Sentinel(Abort()), list), note=print)


def test_a_lock_is_run_again_only_with_what_it_was_of(parts: Components, tmp_path: Path) -> None:
    spec = write_task(tmp_path, {"schedule.steps": 2})
    first = run(parts, spec, tmp_path / "run")
    lock = read_lock(tmp_path / "run" / "lock.json")
    again = run(parts, spec, tmp_path / "again", expected=lock.digests)
    assert again.last_loss == first.last_loss
    with (tmp_path / "train.jsonl").open("a", encoding="utf-8") as rows:
        rows.write(json.dumps(chat("One more?", "ZZZ")) + "\n")
    with pytest.raises(Conflict, match=r"data\.train is sha256:.* and was sha256:"):
        run(parts, spec, tmp_path / "third", expected=lock.digests)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"method.type": "dpo"}, "dpo needs chosen"),
        ({"evaluate.suites": [{"suite": "s.yaml", "metric": "m"}]}, "No suite 's.yaml'"),
        ({"parallelism": {"devices_per_node": 2}}, "planned for 2 processes, and this is one of 1"),
        ({"data.max_length": 8}, "64 of 64 rows are longer than max_length"),
        ({"base.model": "missing"}, "is no folder"),
    ],
)
def test_what_cannot_be_carried_out_is_refused_before_anything_is_written(
    parts: Components, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    from infra.errors import NotFound

    spec = write_task(tmp_path, changes)
    with pytest.raises((InvalidRequest, NotFound), match=words):
        run(parts, spec, tmp_path / "run")
    assert not (tmp_path / "run").exists()

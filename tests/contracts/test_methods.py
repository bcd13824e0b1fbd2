"""Methods of fine-tuning: found in their folder, each keeps the laws."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infra.plugins import available
from infra.settings import load_settings
from service.models import tuning
from service.wiring import Components
from trained import only_third_parties_warn, write_preferences, write_task
from training import adapted_model, planning, resolving, trainer
from training.callbacks import Watch
from training.methods import Learning, learning
from training.methods._batches import against_base
from training.sentinel import Sentinel
from training.spec import read
from training.tokenized import Tokenized
from training.trainer import Material

pytest.importorskip("trl")
pytestmark = [*only_third_parties_warn, pytest.mark.usefixtures("light_training")]
NAMES = available("training.methods")
ROWS = 6


@pytest.fixture(scope="module", params=NAMES)
def material(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Material]:
    folder = tmp_path_factory.mktemp("methods")
    write = write_task if request.param == "sft" else None
    changes = {"schedule.rows_per_step": ROWS, "schedule.steps": 2}
    path = write(folder, changes) if write else write_preferences(folder, request.param, changes)
    spec = read(path)
    parts = Components(load_settings(data_folder=folder / "data"))
    places = tuning.places(parts, folder)
    planned = planning.plan(spec, places)
    planned.require_sound()
    found = resolving.resolve(spec, places, planned.lock)
    base = adapted_model.load_base(
        spec.base, found.base.folder, device="cpu", scores=spec.method.type == "reward"
    )
    model = adapted_model.attach(base, spec.method, seed=spec.seed)
    learning(spec.method).ready(model)
    rows = found.train.sample(ROWS, seed=1)
    yield Material(spec, model, found.tokenizer, rows, rows, planned.lock)
    parts.close()


def method_of(material: Material) -> Learning:
    return learning(material.spec.method)


def test_the_walk_finds_the_methods() -> None:
    assert NAMES == ["dpo", "kto", "reward", "sft"]


def test_a_new_adapter_loses_what_nobody_who_learned_nothing_can_help(material: Material) -> None:
    method = method_of(material)
    start = method.starts_at(material.model.config.get_text_config().vocab_size)
    loss = float(method.loss(material.model.eval(), material.train).detach())
    assert start.low < loss <= start.high


def test_the_loss_is_the_one_that_the_trainer_computes(material: Material, tmp_path: Path) -> None:
    """Also after a step, when no reward is 0 any more."""
    watch = Watch(Sentinel(material.spec.schedule.abort), lambda _: None)
    built = trainer.build(material, tmp_path, callbacks=[watch.as_callback()], device="cpu")
    if material.spec.method.type != "kto":  # its loss has a figure of the batch besides
        before = float(method_of(material).loss(material.model.eval(), material.train).detach())
        assert built.evaluate()["eval_loss"] == pytest.approx(before, abs=1e-5)
    trainer.run(built, tmp_path, watch=watch, note=lambda _: None)
    found = built.evaluate()["eval_loss"]
    if material.spec.method.type == "kto":
        after = with_others(material, built.state.log_history[-1]["eval_kl"])
    else:
        after = float(method_of(material).loss(material.model.eval(), material.train).detach())
    assert found == pytest.approx(after, abs=1e-5)
    assert after < watch.losses[1]


def test_the_loss_of_rows_held_out_depends_on_no_batches(
    material: Material, tmp_path: Path
) -> None:
    if not method_of(material).is_mean_of_tokens:
        pytest.skip("a mean over rows is the same for longer and shorter ones")
    seven = [material.train.ids[0][: 8 + number] for number in range(7)]
    labels = [[-100] * (6 - number) + ids[6 - number :] for number, ids in enumerate(seven)]
    rows = Tokenized(seven, labels)
    expected = float(method_of(material).loss(material.model.eval(), rows).detach())
    for together in (1, 2, 4):
        sizes = {"rows_per_device": together, "data_ranks": 2}
        lock = replace(material.lock, batches={**(material.lock.batches or {}), **sizes})
        asked = replace(material, held_out=rows, lock=lock)
        built = trainer.build(asked, tmp_path, callbacks=[], device="cpu")
        assert built.evaluate()["eval_loss"] == pytest.approx(expected, abs=1e-5), together


def test_rows_held_out_are_as_many_tokens_at_once_as_stretches_of_a_step(
    material: Material, tmp_path: Path
) -> None:
    if not method_of(material).is_mean_of_tokens:
        pytest.skip("sequences are shared by sft alone")
    rows = material.train
    expected = float(method_of(material).loss(material.model.eval(), rows).detach())
    for context, at_once in ((1, 4), (2, 2), (8, 1)):
        lock = replace(
            material.lock,
            batches={**(material.lock.batches or {}), "rows_per_device": 4},
            topology={**(material.lock.topology or {}), "context": context},
        )
        asked = replace(material, held_out=rows, lock=lock)
        built = trainer.build(asked, tmp_path, callbacks=[], device="cpu")
        assert built.args.per_device_eval_batch_size == at_once
        assert built.evaluate()["eval_loss"] == pytest.approx(expected, abs=1e-5), context


def with_others(material: Material, others: float) -> float:
    """Return the loss of answers that are held against those to other questions, too."""
    torch = pytest.importorskip("torch")
    rows = material.train
    with torch.no_grad():
        gained = against_base(material.model.eval(), rows.ids, rows.labels)
    signs = torch.tensor([1.0 if mark else -1.0 for mark in rows.marks])
    return float((1 - torch.sigmoid(material.spec.method.beta * signs * (gained - others))).mean())


def test_of_a_method_only_one_adapter_is_kept(material: Material) -> None:
    assert list(material.model.peft_config) == ["default"]


def held(example: dict[str, Any], name: str) -> list[int]:
    found: list[int] = example[name].tolist()
    return found


def test_kto_holds_an_answer_against_those_to_other_questions() -> None:
    from training.methods.kto import _collate

    examples = [
        {"ids": [[1, 2, 3]], "labels": [[-100, 2, 3]], "mark": True},
        {"ids": [[4, 5, 6, 7]], "labels": [[-100, -100, 6, 7]], "mark": False},
    ]
    made = _collate(examples, pad=0, max_length=4)
    assert held(made, "input_ids") == [[1, 2, 3, 0], [4, 5, 6, 7]]
    assert held(made, "completion_mask") == [[0, 1, 1, 0], [0, 0, 1, 1]]
    assert held(made, "KL_input_ids") == [[1, 6, 7, 0], [4, 5, 2, 3]]
    assert held(made, "KL_completion_mask") == [[0, 1, 1, 0], [0, 0, 1, 1]]
    assert held(made, "KL_attention_mask") == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert held(made, "label") == [True, False]
    short = _collate(examples, pad=0, max_length=3)
    assert held(short, "KL_input_ids") == [[1, 6, 7], [4, 5, 2]]

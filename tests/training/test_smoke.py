"""Smoke checks: a sound task passes all of them, and each planted fault fails the one it is of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from infra.settings import load_settings
from service import tuning
from service.wiring import Components
from trained import only_third_parties_warn, write_task
from training import adapted_model, planning, resolving, smoke
from training.smoke import Bench
from training.spec import read
from training.tokenized import Tokenized

pytest.importorskip("trl")
pytestmark = only_third_parties_warn


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("smoke")
    spec = read(write_task(folder))
    parts = Components(load_settings(data_folder=folder / "data"))
    places = tuning.places(parts, folder)
    lock = planning.plan(spec, places).lock
    found = resolving.resolve(spec, places, lock)

    def fresh() -> Any:
        base = adapted_model.load_base(spec.base, found.base.folder, device="cpu")
        return adapted_model.attach(base, spec.method, seed=spec.seed)

    rows = found.train.sample(smoke.ROWS, seed=1)
    yield Bench(spec, rows, found.tokenizer, lock, "cpu", fresh)
    parts.close()


@pytest.mark.parametrize(
    "check",
    [smoke.initial_loss, smoke.only_adapter, smoke.accumulation, smoke.overfit, smoke.resume],
)
def test_a_sound_task_passes(bench: Bench, check: Callable[[Bench], smoke.Result]) -> None:
    result = check(bench)
    assert result.name == check.__name__
    assert result.passed, result.said


def changed(bench: Bench, change: Callable[[Any], None]) -> Bench:
    def fresh() -> Any:
        model = bench.fresh()
        change(model)
        return model

    return replace(bench, fresh=fresh)


def test_weights_that_know_less_than_nothing_fail_the_initial_loss(bench: Bench) -> None:
    def shout(model: Any) -> None:
        model.get_output_embeddings().weight.data *= 40

    assert not smoke.initial_loss(changed(bench, shout)).passed


def test_a_base_that_is_trained_too_is_found(bench: Bench) -> None:
    def thaw(model: Any) -> None:
        model.get_output_embeddings().weight.requires_grad_(True)

    def freeze(model: Any) -> None:
        for weight in model.parameters():
            weight.requires_grad_(False)
        next(iter(model.parameters())).requires_grad_(True)

    thawed = smoke.only_adapter(changed(bench, thaw))
    assert not thawed.passed, thawed.said
    assert "base" in thawed.said
    assert not smoke.only_adapter(changed(bench, freeze)).passed


def test_labels_that_answer_no_question_cannot_be_learned_by_heart(bench: Bench) -> None:
    ids = [bench.rows.ids[0]] * smoke.ROWS
    labels = [
        [-100 if label == -100 else (label + 7 * row) % 300 for label in bench.rows.labels[0]]
        for row in range(smoke.ROWS)
    ]
    assert not smoke.overfit(replace(bench, rows=Tokenized(ids, labels))).passed


def test_an_adapter_that_differs_each_time_fails_accumulation_and_resume(bench: Bench) -> None:
    seen = iter(range(100))

    def shift(model: Any) -> None:
        model.get_output_embeddings().weight.data *= 1 + 0.2 * next(seen)

    assert not smoke.accumulation(changed(bench, shift)).passed
    assert not smoke.resume(changed(bench, shift)).passed

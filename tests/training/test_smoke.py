"""Smoke checks: a sound task passes all of them, and each planted fault fails the one it is of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from benched import bench_of
from trained import only_third_parties_warn, write_task
from training import endings, smoke
from training.bench import ROWS, Bench
from training.tokenized import Tokenized

pytest.importorskip("trl")
pytestmark = [*only_third_parties_warn, pytest.mark.usefixtures("light_training")]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with bench_of(write_task(tmp_path_factory.mktemp("smoke"))) as bench:
        yield bench


@pytest.mark.parametrize(
    "check",
    [
        smoke.initial_loss,
        smoke.only_adapter,
        smoke.memory,
        smoke.accumulation,
        smoke.overfit,
        smoke.resume,
    ],
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
    ids = [bench.rows.ids[0]] * ROWS
    labels = [
        [-100 if label == -100 else (label + 7 * row) % 300 for label in bench.rows.labels[0]]
        for row in range(ROWS)
    ]
    assert not smoke.overfit(replace(bench, rows=Tokenized(ids, labels))).passed


def test_an_adapter_that_differs_each_time_fails_accumulation_and_resume(bench: Bench) -> None:
    seen = iter(range(100))

    def shift(model: Any) -> None:
        model.get_output_embeddings().weight.data *= 1 + 0.2 * next(seen)

    assert not smoke.accumulation(changed(bench, shift)).passed
    assert not smoke.resume(changed(bench, shift)).passed


def test_an_optimizer_that_forgets_is_found_though_the_next_loss_is_the_same(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = pytest.importorskip("transformers").Trainer
    monkeypatch.setattr(trainer, "_load_optimizer_and_scheduler", lambda *_: None)
    result = smoke.resume(bench)
    assert not result.passed
    assert result.said == "the optimiser does not go on with exp_avg, exp_avg_sq, step"


def test_answers_without_an_end_that_is_learned_are_found(bench: Bench) -> None:
    labels = [
        [-100 if token in bench.ends else label for token, label in zip(ids, row, strict=True)]
        for ids, row in zip(bench.rows.ids, bench.rows.labels, strict=True)
    ]
    unended = replace(bench, rows=Tokenized(bench.rows.ids, labels))
    assert endings.prompts(unended.rows, bench.ends) == []
    others = frozenset({next(iter(bench.ends)) + 1})
    asked = endings.prompts(bench.rows, bench.ends)
    model = bench.fresh()
    assert endings.count_ended(model, asked, others) == 0
    assert model.training, "it is left as it was"


def test_a_prompt_is_what_stands_before_the_last_answer_or_most_of_a_long_one() -> None:
    ids = [1, 2, 3, 9, 4, *range(10, 60), 9]
    labels = [-100, -100, 3, 9, -100, *range(10, 60), 9]
    (prompt,) = endings.prompts(Tokenized([ids], [labels]), frozenset({9}))
    assert prompt.ids == tuple(ids[: -endings.LEFT_TOKENS - 1])
    (short,) = endings.prompts(Tokenized([ids[:4]], [labels[:4]]), frozenset({9}))
    assert (short.ids, short.answer_tokens) == ((1, 2), 2)


def test_no_more_rows_are_on_the_device_at_once_than_were_planned(bench: Bench) -> None:
    seen: list[int] = []

    def watch(model: Any) -> None:
        model.get_input_embeddings().register_forward_hook(
            lambda _module, given, _output: seen.append(given[0].shape[0])
        )

    batches = {**(bench.lock.batches or {}), "rows_per_device": 2}
    narrow = replace(changed(bench, watch), lock=replace(bench.lock, batches=batches))
    for check in (smoke.initial_loss, smoke.accumulation, smoke.resume, smoke.memory):
        assert check(narrow).passed
    assert set(seen) == {1, 2}


def test_activations_are_made_twice_where_that_is_planned(bench: Bench) -> None:
    planned = replace(bench, lock=replace(bench.lock, gradient_checkpointing=True))
    model = smoke._ready(planned)
    assert model.get_base_model().model.gradient_checkpointing
    assert smoke.only_adapter(planned).passed
    assert smoke.accumulation(planned).passed


@pytest.mark.parametrize("is_gpu", [True, False])
def test_a_device_without_room_fails_the_check_and_says_what_to_do(
    bench: Bench, is_gpu: bool
) -> None:
    torch = pytest.importorskip("torch")

    def fill(*_: Any) -> None:
        if is_gpu:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        torch.empty(1 << 50)

    def burden(model: Any) -> None:
        model.get_input_embeddings().register_forward_hook(fill)

    for check in (smoke.initial_loss, smoke.resume):
        result = smoke._found(check, changed(bench, burden))
        assert not result.passed
        assert "lower schedule.rows_per_device" in result.said


def test_what_is_no_lack_of_room_is_not_told_as_one(bench: Bench) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    def break_it(model: Any) -> None:
        model.get_input_embeddings().register_forward_hook(fail)

    with pytest.raises(RuntimeError, match="shapes"):
        smoke._found(smoke.initial_loss, changed(bench, break_it))

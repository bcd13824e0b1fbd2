"""Batches of questions, of which none has a passage that answers another one's."""

from __future__ import annotations

import random
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import planted_words
from trained import only_third_parties_warn
from training.retrieval_models import batching, trainer
from training.retrieval_models.mining import Example
from training.retrieval_models.specification import parse

PASSAGES = st.sampled_from("abcdefghij")
EXAMPLES = st.lists(
    st.builds(
        Example, st.sampled_from("12345678"), PASSAGES, st.lists(PASSAGES, max_size=3).map(tuple)
    ),
    max_size=40,
)


def shared(questions: int, passages: int) -> list[Example]:
    """Return questions that share passages, with negatives of the same."""
    drawn = random.Random(1)
    texts = [f"passage {number}" for number in range(passages)]
    found = [drawn.sample(texts, 5) for _ in range(questions)]
    return [
        Example(f"question {number}", first, tuple(others))
        for number, (first, *others) in enumerate(found)
    ]


@given(EXAMPLES, st.integers(1, 12), st.integers(0, 3))
def test_each_example_comes_once_and_never_with_what_answers_it_as_a_negative(
    examples: list[Example], size: int, epoch: int
) -> None:
    found = list(batching.of_epoch(examples, size, seed=1, epoch=epoch))
    assert sorted(number for batch in found for number in batch) == list(range(len(examples)))
    for batch in found:
        assert 1 <= len(batch) <= size
        assert len({examples[number].question for number in batch}) == len(batch)
        for number in batch:
            for other in set(batch) - {number}:
                passages = (examples[other].positive, *examples[other].negatives)
                assert examples[number].positive not in passages


def test_steps_are_as_many_as_there_are_batches_in_the_epochs_asked_for() -> None:
    examples = shared(200, 60)
    sizes = [
        [len(batch) for batch in batching.of_epoch(examples, 32, seed=1, epoch=epoch)]
        for epoch in range(2)
    ]
    assert len(sizes[0]) > 2 * 7, "seven would hold them if no passages were shared"
    assert batching.steps(examples, 32, epochs=1, seed=1) == len(sizes[0])
    assert batching.steps(examples, 32, epochs=2, seed=1) == len(sizes[0]) + len(sizes[1])
    half = batching.steps(examples, 32, epochs=1.5, seed=1)
    assert half == len(sizes[0]) + -(-len(sizes[1]) // 2)
    assert batching.steps(examples[:1], 32, epochs=3, seed=1) == 3


def test_same_negatives_do_not_keep_questions_apart() -> None:
    examples = [Example(f"q{number}", f"p{number}", ("none of them",)) for number in range(8)]
    assert batching.steps(examples, 8, epochs=1, seed=1) == 1


@only_third_parties_warn[0]
def test_a_trainer_goes_through_every_batch_of_an_epoch(tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers")
    examples = shared(40, 12)
    planted_words.write_embedder(tmp_path / "base")
    values = {"name": "a", "schedule": {"batch": 8}, "device": "cpu",
              "data": {"collection": "a", "train": {"rows": "rows.jsonl"}}}  # fmt: skip
    spec = parse(values, "embedder")
    steps = batching.steps(examples, 8, epochs=2, seed=spec.seed)
    assert steps > 2 * 5
    model = trainer.load(spec, tmp_path / "base", device="cpu")
    built = trainer.build(spec, model, examples, tmp_path / "run", steps=steps, callbacks=[])
    loader = built.get_train_dataloader()
    assert len(loader) == steps
    expected = list(islice(batching.batches(examples, 8, seed=spec.seed), steps))
    assert list(loader.batch_sampler) == expected
    assert sorted(number for batch in expected for number in batch) == sorted([*range(40)] * 2)

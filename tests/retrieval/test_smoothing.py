"""Smoothing of scores, against its definition and its laws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from retrieval.smoothing import NEAREST, smoothed

_scores = st.lists(st.floats(0, 1), min_size=1, max_size=30).map(np.array)
_share = st.floats(0, 1)


def unit_rows(count: int, seed: int) -> NDArray[np.float32]:
    rows = np.random.default_rng(seed).normal(size=(count, 8)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def test_a_score_is_mixed_with_the_mean_of_those_alike() -> None:
    vectors = np.array([[1, 0], [0.8, 0.6], [0, 1]], dtype=np.float32)
    scores = smoothed(np.array([0.9, 0.1, 0.3]), vectors, share=1.0)
    first = (0.9 + 0.8 * 0.1) / 1.8
    second = (0.8 * 0.9 + 0.1 + 0.6 * 0.3) / 2.4
    third = (0.6 * 0.1 + 0.3) / 1.6
    assert scores == pytest.approx([first, second, third], abs=1e-6)


@settings(deadline=None)
@given(scores=_scores, seed=st.integers(0, 99))
def test_a_share_of_0_changes_nothing(scores: NDArray[np.float64], seed: int) -> None:
    np.testing.assert_array_equal(smoothed(scores, unit_rows(len(scores), seed), share=0.0), scores)


@settings(deadline=None)
@given(scores=_scores, seed=st.integers(0, 99), share=_share)
def test_scores_stay_within_the_range_they_had(
    scores: NDArray[np.float64], seed: int, share: float
) -> None:
    drawn = smoothed(scores, unit_rows(len(scores), seed), share=share)
    assert drawn.shape == scores.shape
    assert np.all(drawn >= scores.min() - 1e-6)
    assert np.all(drawn <= scores.max() + 1e-6)


@settings(deadline=None)
@given(scores=_scores, seed=st.integers(0, 99), share=_share, data=st.data())
def test_the_order_of_the_rows_does_not_matter(
    scores: NDArray[np.float64], seed: int, share: float, data: st.DataObject
) -> None:
    vectors = unit_rows(len(scores), seed)
    order = np.array(data.draw(st.permutations(range(len(scores)))))
    expected = smoothed(scores, vectors, share=share)[order]
    np.testing.assert_allclose(
        smoothed(scores[order], vectors[order], share=share), expected, atol=1e-5
    )


def test_only_the_nearest_count() -> None:
    alike = np.tile(np.array([[1.0, 0.0]], dtype=np.float32), (NEAREST, 1))
    vectors = np.vstack([alike, [[0.1, np.sqrt(0.99)]]]).astype(np.float32)
    scores = np.array([*[0.2] * NEAREST, 1.0])
    assert smoothed(scores, vectors, share=1.0)[:NEAREST] == pytest.approx([0.2] * NEAREST)


def test_a_row_without_a_vector_keeps_its_score() -> None:
    vectors = np.array([[0, 0], [1, 0]], dtype=np.float32)
    assert smoothed(np.array([0.7, 0.1]), vectors, share=0.5) == pytest.approx([0.7, 0.1])


def test_no_rows_give_no_scores() -> None:
    assert smoothed(np.empty(0), np.empty((0, 3), dtype=np.float32), share=0.5).shape == (0,)

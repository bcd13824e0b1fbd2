"""Maximal marginal relevance, against its definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from infra.errors import InvalidRequest
from retrieval.diversity import maximal_marginal_relevance

_relevance = arrays.arrays(np.float32, st.integers(0, 12), elements=st.floats(0, 1, width=32))


def unit_rows(count: int, seed: int) -> NDArray[np.float32]:
    rows = np.random.default_rng(seed).normal(size=(count, 4)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


@settings(deadline=None)
@given(relevance=_relevance, seed=st.integers(0, 99), limit=st.integers(0, 15))
def test_balance_1_keeps_the_order_of_relevance(
    relevance: NDArray[np.float32], seed: int, limit: int
) -> None:
    vectors = unit_rows(len(relevance), seed)
    chosen = maximal_marginal_relevance(relevance, vectors, limit=limit, balance=1.0)
    assert chosen == np.argsort(-relevance, kind="stable")[:limit].tolist()


@settings(deadline=None)
@given(
    relevance=_relevance,
    seed=st.integers(0, 99),
    limit=st.integers(0, 15),
    balance=st.floats(0, 1),
)
def test_no_row_is_chosen_twice_and_the_most_relevant_is_first(
    relevance: NDArray[np.float32], seed: int, limit: int, balance: float
) -> None:
    vectors = unit_rows(len(relevance), seed)
    chosen = maximal_marginal_relevance(relevance, vectors, limit=limit, balance=balance)
    assert len(chosen) == len(set(chosen)) == min(limit, len(relevance))
    if chosen and balance > 0.01:
        assert relevance[chosen[0]] == pytest.approx(relevance.max(), abs=1e-4)


@settings(deadline=None)
@given(relevance=_relevance, seed=st.integers(0, 99), balance=st.floats(0, 1))
def test_each_choice_has_the_largest_value_of_those_left(
    relevance: NDArray[np.float32], seed: int, balance: float
) -> None:
    vectors = unit_rows(len(relevance), seed)
    chosen = maximal_marginal_relevance(relevance, vectors, limit=12, balance=balance)

    def value(row: int, before: list[int]) -> float:
        nearest = max((float(vectors[row] @ vectors[other]) for other in before), default=0.0)
        return balance * float(relevance[row]) - (1 - balance) * nearest

    for position, row in enumerate(chosen):
        left = chosen[position:]
        best = max(value(other, chosen[:position]) for other in left)
        assert value(row, chosen[:position]) == pytest.approx(best, abs=1e-4)


def test_a_twin_comes_after_what_is_different() -> None:
    vectors = np.array([[1, 0], [1, 0], [0, 1]], dtype=np.float32)
    relevance = np.array([0.9, 0.9, 0.4], dtype=np.float32)
    assert maximal_marginal_relevance(relevance, vectors, limit=3, balance=0.5) == [0, 2, 1]


@pytest.mark.parametrize("balance", [-0.1, 1.1, float("nan")])
def test_a_balance_outside_0_and_1_is_refused(balance: float) -> None:
    with pytest.raises(InvalidRequest, match="balance"):
        maximal_marginal_relevance(
            np.ones(1, dtype=np.float32), unit_rows(1, 0), limit=1, balance=balance
        )

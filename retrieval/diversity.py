"""Maximal marginal relevance: passages that match and do not repeat each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from infra.errors import InvalidRequest


def maximal_marginal_relevance(
    relevance: NDArray[np.float32], vectors: NDArray[np.float32], *, limit: int, balance: float
) -> list[int]:
    """Choose rows one by one, each the best of those left for what it adds.

    value(row) = balance * relevance - (1 - balance) * its largest cosine to a row chosen before.
    Carbonell and Goldstein, "The use of MMR, diversity-based reranking for reordering documents
    and producing summaries", SIGIR 1998.

    >>> twins_and_another = np.array([[1, 0], [1, 0], [0, 1]], dtype=np.float32)
    >>> scores = np.array([0.9, 0.8, 0.5], dtype=np.float32)
    >>> maximal_marginal_relevance(scores, twins_and_another, limit=2, balance=0.5)
    [0, 2]

    Args:
        relevance: `(n,)`, on the scale of a cosine.
        vectors: `(n, dimension)`, unit rows.
        limit: at most this many rows.
        balance: 1 keeps the order of relevance, 0 looks at the differences alone.

    Returns:
        Rows in the order of choice; ties fall to the smaller row.

    Raises:
        InvalidRequest: `balance` is not between 0 and 1.
    """
    if not 0 <= balance <= 1:
        raise InvalidRequest(f"The balance {balance!r} is not between 0 and 1")
    left = np.ones(len(relevance), dtype=np.bool_)
    nearest = np.zeros(len(relevance), dtype=np.float32)
    chosen: list[int] = []
    while len(chosen) < min(limit, len(relevance)):
        values = np.where(left, balance * relevance - (1 - balance) * nearest, -np.inf)
        row = int(np.argmax(values))
        chosen.append(row)
        left[row] = False
        cosines = vectors @ vectors[row]
        nearest = cosines if len(chosen) == 1 else np.maximum(nearest, cosines)
    return chosen

"""The order of hits: falling scores, ties to the smaller chunk id."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.indexes import Hits

LEXICAL_DECIMALS = 4
"""BM25 sums its terms in no fixed order; what differs only by that rounding error is a tie."""


def inner_products(vectors: NDArray[np.float16], query: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return `(n,)` scores; a row's does not depend on the rows beside it, as BLAS's would."""
    scores: NDArray[np.float32] = (vectors.astype(np.float32) * query).sum(axis=1)
    return scores


def best(chunk_ids: NDArray[np.int64], scores: NDArray[np.float32], limit: int) -> Hits:
    order = np.lexsort((chunk_ids, -scores))[: max(limit, 0)]
    return Hits(chunk_ids[order], scores[order])


def nothing() -> Hits:
    return Hits(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32))


def rows_or_zeros(
    held: Mapping[int, Any], chunk_ids: NDArray[np.int64], *, dimension: int
) -> NDArray[np.float16]:
    """Return `(len(chunk_ids), dimension)`: what is held of each, zeros for the others."""
    found = np.zeros((len(chunk_ids), dimension), dtype=np.float16)
    for row, number in enumerate(chunk_ids.tolist()):
        if number in held:
            found[row] = held[number]
    return found

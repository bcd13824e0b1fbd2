"""What Milvus answers, as arrays; and what is sent to it, in slices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from retrieval.indexes._batch import Batch

_T = TypeVar("_T")


def slices(items: Sequence[_T], size: int) -> Iterator[list[_T]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])


def is_cut(hits: Sequence[Any], limit: int, asked: int, *, tolerance: float) -> bool:
    """Whether hits that were not returned may tie with the last one that counts."""
    if len(hits) < asked:
        return False
    scores = scores_of(hits)
    gap = abs(float(scores[limit - 1]) - float(scores[-1]))
    return gap <= tolerance * max(1.0, float(np.abs(scores).max()))


def ids_of(hits: Sequence[Any]) -> NDArray[np.int64]:
    return np.array([hit["chunk_id"] for hit in hits], dtype=np.int64)


def scores_of(hits: Sequence[Any]) -> NDArray[np.float32]:
    # Milvus Lite gives BM25 scores their negative, as distances.
    return np.array([hit["distance"] for hit in hits], dtype=np.float32)


def gone(batch: Batch) -> list[int]:
    kept = {change.chunk_id for change in batch.upserts}
    return [number for number in batch.touched.tolist() if number not in kept]

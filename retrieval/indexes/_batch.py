"""What a batch of changes comes to: the last word on each chunk, its vectors checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from infra.errors import InvalidConfiguration, InvalidRequest
from retrieval.indexes import Change


@dataclass(frozen=True, slots=True)
class Batch:
    """The net effect of some changes; every chunk appears once."""

    touched: NDArray[np.int64]
    """Chunk ids that are upserted or gone, rising."""
    upserts: tuple[Change, ...]
    """In rising order of chunk id."""
    vectors: NDArray[np.float16]
    """`(len(upserts), dimension)`."""
    watermark: int


def reduce(changes: Sequence[Change], *, after: int, dimension: int) -> Batch | None:
    """Return what the changes above sequence `after` come to, or None if there are none.

    Raises:
        InvalidConfiguration: a vector does not have `dimension` numbers.
    """
    pending = [change for change in changes if change.sequence > after]
    if not pending:
        return None
    last = {change.chunk_id: change for change in pending}
    touched = sorted(last)
    upserts = tuple(last[chunk_id] for chunk_id in touched if last[chunk_id].vector is not None)
    vectors = np.empty((len(upserts), dimension), dtype=np.float16)
    for row, change in enumerate(upserts):
        vector = np.asarray(change.vector)
        if vector.shape != (dimension,):
            raise InvalidConfiguration(
                f"Chunk {change.chunk_id!r} has a vector of shape {vector.shape!r}, the index holds"
                f" {dimension!r} numbers each; rebuild the collection with the new embedder"
            )
        vectors[row] = vector
    return Batch(np.array(touched, dtype=np.int64), upserts, vectors, pending[-1].sequence)


def query_vector(vector: NDArray[np.float32], *, dimension: int) -> NDArray[np.float32]:
    """Return a question's vector as contiguous float32.

    Raises:
        InvalidRequest: it does not have `dimension` numbers, or one of them is not finite.
    """
    query = np.ascontiguousarray(vector, dtype=np.float32)
    if query.shape != (dimension,):
        raise InvalidRequest(
            f"The question's vector has shape {query.shape!r}, the index holds {dimension!r}"
            " numbers each; ask with the embedder the collection was built with"
        )
    if not np.isfinite(query).all():
        raise InvalidRequest("The question's vector holds a number that is not finite")
    return query

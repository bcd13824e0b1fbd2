"""Fusion: one ranking out of several lists of hits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from infra.errors import InvalidRequest
from retrieval.indexes import Hits


@dataclass(frozen=True, slots=True)
class Fused:
    """A chunk that at least one list found."""

    chunk_id: int
    score: float
    """Sum over the lists; comparable within one fusion only."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """The chunk's own score in each list that found it."""


def reciprocal_rank_fusion(
    lists: Mapping[str, Hits],
    *,
    limit: int,
    k: int = 60,
    weights: Mapping[str, float] | None = None,
) -> list[Fused]:
    """Merge lists by rank, so that their scores need not be comparable.

    score(chunk) = sum over the lists that found it of weight / (k + rank), rank counted from 1.
    Cormack, Clarke and Buettcher, "Reciprocal rank fusion outperforms Condorcet and individual
    rank learning methods", SIGIR 2009; k = 60 is theirs.

    >>> import numpy as np
    >>> dense = Hits(np.array([7, 8]), np.array([0.9, 0.8], dtype=np.float32))
    >>> lexical = Hits(np.array([8]), np.array([12.0], dtype=np.float32))
    >>> best = reciprocal_rank_fusion({"dense": dense, "lexical": lexical}, limit=2)
    >>> [(found.chunk_id, round(found.score, 4)) for found in best]
    [(8, 0.0325), (7, 0.0164)]

    Args:
        lists: by name; each in falling order, every chunk at most once.
        limit: at most this many come back.
        k: the larger, the less the first ranks stand out.
        weights: by name, 1 where absent; none may be negative.

    Returns:
        Falling scores; ties fall to the smaller chunk id. The order of `lists` does not matter.

    Raises:
        InvalidRequest: `k` or a weight is negative.
    """
    weights = weights or {}
    negative = {name: weight for name, weight in weights.items() if not weight >= 0}
    if k < 0 or negative:
        raise InvalidRequest(f"k = {k!r} and the weights {negative!r} must not be negative")
    totals: dict[int, float] = {}
    scores: dict[int, dict[str, float]] = {}
    # Sums of floats depend on their order, so it is fixed.
    for name in sorted(lists):
        hits, weight = lists[name], weights.get(name, 1.0)
        found = zip(hits.chunk_ids.tolist(), hits.scores.tolist(), strict=True)
        for rank, (chunk_id, score) in enumerate(found, start=1):
            totals[chunk_id] = totals.get(chunk_id, 0.0) + weight / (k + rank)
            scores.setdefault(chunk_id, {})[name] = score
    order = sorted(totals, key=lambda chunk_id: (-totals[chunk_id], chunk_id))
    return [
        Fused(chunk_id, totals[chunk_id], scores[chunk_id]) for chunk_id in order[: max(limit, 0)]
    ]

"""Fusion: one ranking out of several lists of hits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from infra.errors import InvalidRequest
from retrieval.indexes import Hits

RANK_CONSTANT = 60
"""As its authors chose it."""


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
    k: int = RANK_CONSTANT,
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
    _refuse_negative({"k": k, **weights})
    totals: dict[int, float] = {}
    scores: dict[int, dict[str, float]] = {}
    # Sums of floats depend on their order, so it is fixed.
    for name in sorted(lists):
        hits, weight = lists[name], weights.get(name, 1.0)
        found = zip(hits.chunk_ids.tolist(), hits.scores.tolist(), strict=True)
        for rank, (chunk_id, score) in enumerate(found, start=1):
            totals[chunk_id] = totals.get(chunk_id, 0.0) + weight / (k + rank)
            scores.setdefault(chunk_id, {})[name] = score
    return _best(totals, scores, limit=limit)


def convex_combination(
    lists: Mapping[str, Hits],
    *,
    limit: int,
    weights: Mapping[str, float],
    depth: int | None = None,
) -> list[Fused]:
    """Merge lists by score, each brought to the range from 0 to 1 first.

    score(chunk) = sum over the lists that found it of weight * (score - floor) / (best - floor).
    The floor is the most that a chunk outside the list can have: its last score where the list was
    cut at `depth`, else 0. Bruch, Gai and Ingber, "An analysis of fusion functions for hybrid
    retrieval", ACM TOIS 2023, compare such sums with reciprocal ranks.

    >>> import numpy as np
    >>> dense = Hits(np.array([7, 8]), np.array([0.8, 0.6], dtype=np.float32))
    >>> lexical = Hits(np.array([8]), np.array([12.0], dtype=np.float32))
    >>> lists, weights = {"dense": dense, "lexical": lexical}, {"dense": 0.6, "lexical": 0.4}
    >>> best = convex_combination(lists, limit=2, weights=weights)
    >>> [(found.chunk_id, round(found.score, 4)) for found in best]
    [(8, 0.85), (7, 0.6)]

    Args:
        lists: by name; each in falling order, every chunk at most once.
        limit: at most this many come back.
        weights: by name; with a sum of 1, scores end up between 0 and 1. A list of weight 0 is
            left out.
        depth: what each list was asked for; None if none was cut.

    Returns:
        Falling scores; ties fall to the smaller chunk id.

    Raises:
        InvalidRequest: a weight is negative.
    """
    _refuse_negative(weights)
    totals: dict[int, float] = {}
    scores: dict[int, dict[str, float]] = {}
    for name in sorted(lists):
        hits, weight = lists[name], weights.get(name, 1.0)
        if not weight or not len(hits.scores):
            continue
        shares = _shares(hits.scores.astype(np.float64), cut=len(hits.scores) == depth)
        found = zip(hits.chunk_ids.tolist(), hits.scores.tolist(), shares.tolist(), strict=True)
        for chunk_id, score, share in found:
            totals[chunk_id] = totals.get(chunk_id, 0.0) + weight * share
            scores.setdefault(chunk_id, {})[name] = score
    return _best(totals, scores, limit=limit)


def mean(rankings: Sequence[Sequence[Fused]], *, limit: int) -> list[Fused]:
    """Merge the rankings of several questions: a chunk's mean score, 0 where it was not found.

    Its score in each list is the best that any question gave it.
    """
    totals: dict[int, float] = {}
    scores: dict[int, dict[str, float]] = {}
    for ranking in rankings:
        for item in ranking:
            totals[item.chunk_id] = totals.get(item.chunk_id, 0.0) + item.score / len(rankings)
            known = scores.setdefault(item.chunk_id, {})
            for name, score in item.scores.items():
                known[name] = max(score, known.get(name, score))
    return _best(totals, scores, limit=limit)


def _shares(scores: NDArray[np.float64], *, cut: bool) -> NDArray[np.float64]:
    floor = scores[-1] if cut else 0.0
    if scores[0] <= floor:  # nothing stands out: all alike where the list was cut, else no match
        return np.full(len(scores), float(cut))
    shares: NDArray[np.float64] = np.maximum(scores - floor, 0.0) / (scores[0] - floor)
    return shares


def _best(
    totals: Mapping[int, float], scores: Mapping[int, Mapping[str, float]], *, limit: int
) -> list[Fused]:
    order = sorted(totals, key=lambda chunk_id: (-totals[chunk_id], chunk_id))
    return [
        Fused(chunk_id, totals[chunk_id], scores[chunk_id]) for chunk_id in order[: max(limit, 0)]
    ]


def _refuse_negative(values: Mapping[str, float]) -> None:
    negative = {name: value for name, value in values.items() if not value >= 0}
    if negative:
        raise InvalidRequest(f"{negative!r}: neither k nor a weight may be negative")

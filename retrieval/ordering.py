"""Ordering: one ranking out of what dense and lexical search found, fused and then smoothed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from retrieval import fusion
from retrieval.fusion import Fused
from retrieval.indexes import Hits
from retrieval.smoothing import smoothed

Fusion: TypeAlias = Literal["convex", "rrf"]

SMOOTHED = 50
"""Candidates among which scores are smoothed; more cost time and change nothing on top."""


@dataclass(frozen=True, slots=True)
class Way:
    """How lists become one ranking."""

    fusion: Fusion
    dense_weight: float
    """Of the convex fusion, 0 to 1; the rest is lexical."""
    smoothing: float
    """The part of a score that comes from candidates alike; of the convex fusion, 0 to 1."""


def ordered(
    lists: Mapping[str, Hits],
    way: Way,
    *,
    depth: int,
    wanted: int,
    vectors: Callable[[NDArray[np.int64]], NDArray[np.floating]],
) -> list[Fused]:
    """Return chunks best first, with scores between 0 and 1.

    Args:
        lists: by name, `dense` and `lexical` or one of them.
        way: how.
        depth: what each list was asked for, and at most this many come back.
        wanted: those that somebody looks at; at least so many take part in the smoothing.
        vectors: from the numbers of chunks to their vectors, `(len, dimension)`.
    """
    fused = _fused(lists, way, depth=depth)
    if len(lists) < 2 or way.fusion != "convex" or not way.smoothing:
        return fused
    count = max(SMOOTHED, wanted)
    head, tail = fused[:count], fused[count:]
    rows = vectors(np.array([item.chunk_id for item in head], dtype=np.int64))
    scores = smoothed(
        np.array([item.score for item in head]), rows.astype(np.float32), share=way.smoothing
    )
    order = np.argsort(-scores, kind="stable")
    head = [_scored(head[row], float(scores[row])) for row in order]
    return [*head, *(_scored(item, min(item.score, head[-1].score)) for item in tail)]


def _fused(lists: Mapping[str, Hits], way: Way, *, depth: int) -> list[Fused]:
    if way.fusion == "rrf":
        found = fusion.reciprocal_rank_fusion(lists, limit=depth)
        # What a chunk that heads every list has.
        best = len(lists) / (1 + fusion.RANK_CONSTANT)
        return [_scored(item, min(1.0, item.score / best)) for item in found]
    weights = dict.fromkeys(lists, 1.0)
    if len(lists) == 2:
        weights = {"dense": way.dense_weight, "lexical": 1 - way.dense_weight}
    return fusion.convex_combination(lists, limit=depth, weights=weights, depth=depth)


def _scored(item: Fused, score: float) -> Fused:
    # `dataclasses.replace` takes twice as long, which shows in a hundred candidates.
    return Fused(item.chunk_id, score, item.scores)

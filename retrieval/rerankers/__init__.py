"""Rerankers: plug-ins that read a question and a passage together and say how well they fit.

A plug-in is a file with `build(**options) -> Reranker`. The laws, run over each by
`tests/contracts/test_rerankers.py`: one score per text, between 0 and 1, a batch equals its
singles, no texts give no scores; or None every time. One with a `weight` below 1 shares the order
with the fusion. The smallest is `none`:

>>> from retrieval.rerankers import open_reranker
>>> open_reranker("none").score("What is ragstone?", ["A kind of limestone."]) is None
True
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from infra.plugins import load


class Reranker(Protocol):
    """Scores passages for one question; safe to share between threads."""

    def score(self, question: str, texts: Sequence[str]) -> NDArray[np.float32] | None:
        """Return `(len(texts),)` scores between 0 and 1, larger is better.

        None is no opinion: the passages keep their order and their scores.
        """
        ...


def open_reranker(name: str, **options: Any) -> Reranker:
    """Build the reranker of plug-in `name`; heavy packages are imported at its first use."""
    return cast("Reranker", load("retrieval.rerankers", name)(**options))


def ranked(
    reranker: Reranker, question: str, texts: Sequence[str], *, fused: Sequence[float]
) -> NDArray[np.floating[Any]] | None:
    """Return the scores that put passages in order, larger is better; None is no opinion.

    They are the reranker's own. If it has a `weight` below 1, they are the weighted mean of its
    scores and those of the fusion, both stretched to lie between 0 and 1, and then brought back to
    between the weighted means of both lowest and of both best. So they can be compared between
    questions as far as the two can: of a question that nothing answers, no passage scores 1.

    Args:
        reranker: that reads.
        question: that is asked.
        texts: of the passages.
        fused: the score of each by the fusion.
    """
    scores = reranker.score(question, texts)
    weight = float(getattr(reranker, "weight", 1.0))
    if scores is None or weight == 1 or not len(scores):
        return scores
    read, found = scores.astype(np.float64), np.asarray(fused, dtype=np.float64)
    lowest = weight * read.min() + (1 - weight) * found.min()
    best = weight * read.max() + (1 - weight) * found.max()
    mixed = weight * _stretched(read) + (1 - weight) * _stretched(found)
    between: NDArray[np.float64] = lowest + mixed * (best - lowest)
    return between


def _stretched(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    lowest, best = float(scores.min()), float(scores.max())
    if best <= lowest:
        return np.ones(len(scores))
    return (scores - lowest) / (best - lowest)

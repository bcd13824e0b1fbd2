"""Smoothing: passages that are alike are right or wrong together; their scores draw closer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

NEAREST = 10
"""Rows that a score is averaged over, the row itself among them."""


def smoothed(
    scores: NDArray[np.float64], vectors: NDArray[np.float32], *, share: float
) -> NDArray[np.float64]:
    """Mix each score with the mean of the scores of the rows most like it.

    smoothed = (1 - share) * score + share * sum(cosine * score) / sum(cosine), over the `NEAREST`
    rows with the largest cosines; negative ones count 0. Diaz, "Regularizing ad hoc retrieval
    scores", CIKM 2005: the cluster hypothesis as a filter over the candidates.

    >>> vectors = np.array([[1, 0], [0.8, 0.6], [0, 1]], dtype=np.float32)
    >>> smoothed(np.array([0.9, 0.1, 0.3]), vectors, share=0.5).round(2).tolist()
    [0.72, 0.26, 0.26]

    Args:
        scores: `(n,)`.
        vectors: `(n, dimension)`, unit rows.
        share: 0 changes nothing, 1 leaves nothing of a row's own score but its part in the mean.

    Returns:
        `(n,)`, between the smallest and the largest score.
    """
    if not len(scores) or not share:
        return scores
    likeness = np.maximum(vectors @ vectors.T, 0)
    if len(scores) > NEAREST:
        least = np.partition(likeness, -NEAREST, axis=1)[:, [-NEAREST]]
        likeness[likeness < least] = 0
    # A row is like itself, whatever rounding or a vector of zeros says.
    np.fill_diagonal(likeness, 1)
    means = (likeness @ scores) / likeness.sum(axis=1)
    smoothed: NDArray[np.float64] = (1 - share) * scores + share * means
    return smoothed

"""Risk and coverage: what is lost among the cases that a target is surest of."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from evals.statistics.intervals import Floats


def selective_risks(confidences: npt.ArrayLike, losses: npt.ArrayLike) -> Floats:
    """Return the mean loss of the surest k cases, for k from 1 to n.

    Of cases that are equally sure none comes first: each place has the expectation over all their
    orders. The mean of what is returned is the area under the curve (AURC). Sources: Geifman and
    El-Yaniv 2017; Geifman, Uziel and El-Yaniv 2019.

    >>> selective_risks([0.9, 0.9, 0.1], [0.0, 1.0, 1.0]).round(3).tolist()
    [0.5, 0.5, 0.667]

    Args:
        confidences: shape (n,), n > 0; larger is surer, and only their order counts.
        losses: shape (n,).
    """
    sure = np.asarray(confidences, dtype=np.float64)
    order = np.argsort(-sure, kind="stable")
    sure, lost = sure[order], np.asarray(losses, dtype=np.float64)[order]
    starts = np.flatnonzero(np.concatenate([[True], sure[1:] != sure[:-1]]))
    sizes = np.diff(np.append(starts, sure.size))
    expected = np.repeat(np.add.reduceat(lost, starts) / sizes, sizes)
    found: Floats = np.cumsum(expected) / np.arange(1, sure.size + 1)
    return found

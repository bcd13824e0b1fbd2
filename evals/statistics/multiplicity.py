"""Many tests at once: Holm for the few that decide, Benjamini-Hochberg for the many that warn."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from evals.statistics.intervals import Floats
from infra.errors import InvalidRequest
from infra.plugins import require


def holm(p_values: npt.ArrayLike) -> Floats:
    """Return p-values, shape (k,), adjusted so that P(any false rejection) <= alpha.

    Step-down (Holm, Scandinavian Journal of Statistics 1979); valid under any dependence.

    >>> holm([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    # `multipletests` of statsmodels gives the same, and collects all garbage of the process.
    p = _p_values(p_values)
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted


def benjamini_hochberg(p_values: npt.ArrayLike) -> Floats:
    """Return p-values, shape (k,), adjusted so that the expected share of false rejections <= q.

    Step-up (Benjamini & Hochberg, JRSS B 1995); valid for independent or positively dependent
    tests, as slices of one metric are.

    >>> benjamini_hochberg([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.04, 0.04]
    """
    p = _p_values(p_values)
    if p.size == 0:
        return p
    stats = require("scipy.stats", extra="evals")
    adjusted: Floats = np.maximum(stats.false_discovery_control(p, method="bh"), p)
    return adjusted


def _p_values(p_values: npt.ArrayLike) -> Floats:
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise InvalidRequest(f"These are not p-values between 0 and 1: {p.tolist()!r}")
    return p

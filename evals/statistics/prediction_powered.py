"""The mean of human labels from few of them and many scores of a judge, whose bias is removed."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from evals.statistics.intervals import Interval, at_least_two
from infra.errors import InvalidRequest
from infra.plugins import require


def mean(
    *,
    labels: npt.ArrayLike,
    judged: npt.ArrayLike,
    unlabelled: npt.ArrayLike,
    level: float = 0.95,
) -> Interval:
    """Return the mean that human labels of everything would have, with its interval.

    Prediction-powered inference (Angelopoulos et al., Science 2023) with the weight that makes
    the interval shortest (PPI++, 2023): w mean(unlabelled) + mean(labels - w judged). A judge that
    is useless gets the weight 0, and the interval is that of the labels alone.

    Args:
        labels: what people say of the labelled cases, shape (n,).
        judged: what the judge says of the same cases, shape (n,).
        unlabelled: what the judge says of all other cases, shape (m,).
        level: of the interval.

    Raises:
        InvalidRequest: fewer than two cases of either kind, or lists of different lengths. The
            labelled cases must be a random sample of all; nothing here can check that.
    """
    truth, beside, rest = (at_least_two(part) for part in (labels, judged, unlabelled))
    if truth.size != beside.size:
        raise InvalidRequest(
            f"{truth.size} labels and {beside.size} scores of the judge; give both of each case"
        )
    weight = 0.0
    if (spread := float(np.concatenate([beside, rest]).var(ddof=1))) > 0:
        shared = float(np.cov(truth, beside)[0, 1])
        weight = min(1.0, max(0.0, shared / (spread * (1 + truth.size / rest.size))))
    corrected = truth - weight * beside
    centre = weight * float(rest.mean()) + float(corrected.mean())
    variance = weight**2 * rest.var(ddof=1) / rest.size + corrected.var(ddof=1) / truth.size
    reach = float(require("scipy.special", extra="evals").stdtrit(truth.size - 1, (1 + level) / 2))
    error = math.sqrt(variance)
    return Interval(centre, centre - reach * error, centre + reach * error, level)

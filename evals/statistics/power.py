"""Power: how many cases a gate needs before it can say anything about its margin."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from evals.statistics.clusters import totals
from infra.errors import InvalidRequest
from infra.plugins import require


def needed(
    *, distance: float, sd: float, alpha: float = 0.05, power: float = 0.8, design: float = 1.0
) -> int:
    """Return how many cases a one-sided test needs: design ((z_alpha + z_power) sd / distance)^2.

    Args:
        distance: from the true mean to the threshold; the margin, where nothing changed.
        sd: standard deviation of a case's (paired) value; for paired pass or fail without a
            difference, the root of the share of discordant cases.
        alpha: of the one-sided test.
        power: the chance that the test shall have to succeed.
        design: the design effect of clusters.

    Raises:
        InvalidRequest: a number out of its range.

    >>> needed(distance=0.03, sd=0.10**0.5), needed(distance=0.03, sd=0.20**0.5)
    (687, 1374)
    """
    for name, value in (("distance", distance), ("design", design)):
        if not (value > 0 and math.isfinite(value)):
            raise InvalidRequest(f"{name} is {value!r}; it must be positive", parameter=name)
    for name, value in (("alpha", alpha), ("power", power)):
        if not 0 < value < 1:
            raise InvalidRequest(f"{name} is {value!r}; give a share of 1", parameter=name)
    ndtri = require("scipy.special", extra="evals").ndtri
    reach = float(ndtri(1 - alpha) + ndtri(power))
    return max(2, math.ceil(design * (max(reach, 0.0) * sd / distance) ** 2))


def needed_without_fault(*, rate: float, alpha: float = 0.05) -> int:
    """Return the fewest cases, all faultless, that show a rate of faults below `rate`.

    The exact bound: the least n with (1 - rate)^n <= alpha, about 3 / rate.

    Raises:
        InvalidRequest: a number out of its range.

    >>> needed_without_fault(rate=0.01)
    299
    """
    if not (rate > 0 and 0 < alpha < 1):
        raise InvalidRequest(f"rate is {rate!r} and alpha {alpha!r}; give shares of 1")
    return 1 if rate >= 1 else math.ceil(math.log(alpha) / math.log1p(-rate))


def intraclass(values: npt.ArrayLike, clusters: npt.ArrayLike) -> float:
    """Return the intraclass correlation of values in clusters, between 0 and 1.

    One-way analysis of variance (Donald & Donner, Statistics in Medicine 1987); below 0 is 0, and
    so is what cannot be told, because no cluster has two cases or no value differs.
    """
    data = np.asarray(values, dtype=np.float64)
    sums, sizes = totals(data, clusters)
    groups, n = sums.size, data.size
    if groups < 2 or n == groups or np.ptp(data) == 0:
        return 0.0
    size = (n - float((sizes**2).sum()) / n) / (groups - 1)
    between_sum = float((sizes * (sums / sizes - data.mean()) ** 2).sum())
    within = (float(((data - data.mean()) ** 2).sum()) - between_sum) / (n - groups)
    between = between_sum / (groups - 1)
    return min(1.0, max(0.0, (between - within) / (between + (size - 1) * within)))


def design_effect(sizes: npt.ArrayLike, correlation: float) -> float:
    """Return by how much clusters of these sizes, shape (g,), raise the variance of a mean.

    1 + (m - 1) rho (Kish 1965), with m = sum(sizes^2) / sum(sizes) where they differ in size.

    >>> design_effect([5, 5, 5], 0.5)
    3.0
    """
    counts = np.asarray(sizes, dtype=np.float64)
    return 1.0 + (float((counts**2).sum() / counts.sum()) - 1.0) * correlation

"""Confidence intervals of rates, by Wilson and by Clopper and Pearson, and of differences."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from infra.errors import InvalidRequest
from infra.plugins import require

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate between two bounds, in the units of what was measured."""

    estimate: float
    low: float
    high: float
    level: float = 0.95
    """Share of repetitions of the whole experiment in which the bounds enclose the truth."""


def wilson(successes: int, trials: int, *, level: float = 0.95) -> Interval:
    """Return Wilson's score interval of a rate (Wilson, JASA 1927): near `level` on average.

    >>> interval = wilson(45, 50)
    >>> round(interval.low, 3), round(interval.high, 3)
    (0.786, 0.957)
    """
    return _rate(successes, trials, level, "wilson")


def clopper_pearson(successes: int, trials: int, *, level: float = 0.95) -> Interval:
    """Return the exact interval of a rate (Clopper & Pearson, Biometrika 1934): never too short."""
    return _rate(successes, trials, level, "exact")


def difference(first: Interval, second: Interval) -> Interval:
    """Return the interval of `second` - `first`, of two independent samples.

    The variances are recovered from the two intervals (Newcombe, Statistics in Medicine 1998;
    Zou & Donner 2008), so it suits rates near 0 and 1, and means, alike.

    Raises:
        InvalidRequest: the two are of different levels.
    """
    if first.level != second.level:
        raise InvalidRequest(
            f"The intervals are of levels {first.level!r} and {second.level!r}; make both of one"
        )
    gap = second.estimate - first.estimate
    down = math.hypot(second.estimate - second.low, first.high - first.estimate)
    up = math.hypot(second.high - second.estimate, first.estimate - first.low)
    return Interval(gap, gap - down, gap + up, first.level)


def at_least_two(values: npt.ArrayLike) -> Floats:
    """Return the values as an array, shape (n,); fewer than two, or NaN, are an InvalidRequest."""
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 1 or data.size < 2:
        raise InvalidRequest(
            f"An interval needs at least two values in one row; the shape is {data.shape!r}"
        )
    if not np.isfinite(data).all():
        raise InvalidRequest("A value is not a finite number; leave out what was not scored")
    return data


def _rate(
    successes: int, trials: int, level: float, method: Literal["wilson", "exact"]
) -> Interval:
    if not 0 <= successes <= trials or trials == 0:
        raise InvalidRequest(
            f"{successes!r} successes of {trials!r} trials have no rate; give 0 <= successes <= "
            "trials, and at least one trial"
        )
    test = require("scipy.stats", extra="evals").binomtest(successes, trials)
    bounds = test.proportion_ci(confidence_level=level, method=method)
    return Interval(successes / trials, float(bounds.low), float(bounds.high), level)

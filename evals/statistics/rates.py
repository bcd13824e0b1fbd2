"""A rate of independent passes, tested exactly against a floor."""

from __future__ import annotations

import math
from dataclasses import dataclass

from evals.statistics.intervals import Interval, clopper_pearson
from infra.errors import InvalidRequest
from infra.plugins import require


@dataclass(frozen=True, slots=True)
class Rate:
    """Passes among cases that are independent of each other; binomial tests, no approximation."""

    passes: int
    cases: int

    @property
    def estimate(self) -> float:
        return self.passes / self.cases

    def p_above(self, threshold: float) -> float:
        """Return the p-value of 'the rate is at most the threshold' against 'it is above'."""
        _require_share(threshold)
        stats = require("scipy.stats", extra="evals")
        return max(float(stats.binom.sf(self.passes - 1, self.cases, threshold)), math.ulp(0.0))

    def p_below(self, threshold: float) -> float:
        """Return the p-value of 'the rate is at least the threshold' against 'it is below'."""
        _require_share(threshold)
        stats = require("scipy.stats", extra="evals")
        return max(float(stats.binom.cdf(self.passes, self.cases, threshold)), math.ulp(0.0))

    def interval(self, level: float = 0.95) -> Interval:
        """Return Clopper and Pearson's interval, which these tests do not reject."""
        return clopper_pearson(self.passes, self.cases, level=level)


def _require_share(threshold: float) -> None:
    if not 0 <= threshold <= 1:
        raise InvalidRequest(f"threshold {threshold!r}: a rate is between 0 and 1")

"""No difference in any cluster: how much may have changed all the same, by the clusters seen."""

from __future__ import annotations

import math
from dataclasses import dataclass

from evals.statistics.intervals import Interval


@dataclass(frozen=True, slots=True)
class Unchanged:
    """A metric of the whole set that is the same in two runs, whatever is left out of it.

    If a share s of all clusters changed, none of n would with probability (1 - s)^n. The metric is
    taken to move by its range times that share at most.
    """

    clusters: int
    width: float
    """Of the metric's range."""

    def p_above(self, threshold: float) -> float:
        """Return the p-value of 'the difference is at most the threshold'."""
        if threshold >= 0:
            return 1.0
        share = min(1.0, -threshold / self.width)
        return max((1 - share) ** self.clusters, math.ulp(0.0))

    def p_below(self, threshold: float) -> float:
        """Return the p-value of 'the difference is at least the threshold'."""
        return self.p_above(-threshold)

    def interval(self, level: float = 0.95) -> Interval:
        """Return the bounds that these tests do not reject, each at (1 - level) / 2."""
        tail = (1 - level) / 2
        most = self.width * (1 - tail ** (1 / self.clusters))
        return Interval(0.0, -most, most, level)

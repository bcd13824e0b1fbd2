"""Anytime-valid inference for bounded values: a gambler bets against the hypothesis."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from evals.statistics.intervals import Floats, Interval
from infra.errors import InvalidRequest

_COARSE = 32
"""Candidate means of each of two searches; a bound is exact to the range divided by its square,
towards the wide side."""
_STAKE = 0.75
"""Share of the wealth that one cluster can cost at most."""


@dataclass(frozen=True, slots=True, eq=False)
class Bets:
    """Values in clusters in the order in which they came, each between `lowest` and `highest`.

    Whoever bets on 'the mean is higher' against a mean that is not, is expected to win nothing,
    and has at some time 1 / alpha times the stake with probability alpha at most (Ville 1939).
    So p-values and bounds hold for any distribution, any number of clusters, and however often
    and whenever one looks. The stakes are aGRAPA's (Waudby-Smith & Ramdas, JRSS B 2024).
    """

    sums: Floats
    """Of the values of each cluster, shape (clusters,)."""
    sizes: Floats
    """Number of values of each cluster, shape (clusters,)."""
    lowest: float
    highest: float

    @property
    def estimate(self) -> float:
        return float(self.sums.sum() / self.sizes.sum())

    def p_above(self, threshold: float) -> float:
        """Return the p-value of 'the mean is at most the threshold', after all looks so far."""
        if threshold >= self.highest:
            return 1.0
        if threshold < self.lowest:
            return math.ulp(0.0)
        most = float(self._log_wealth(np.array([threshold])).max())
        return max(math.exp(-max(most, 0.0)), math.ulp(0.0))

    def p_below(self, threshold: float) -> float:
        """Return the p-value of 'the mean is at least the threshold', after all looks so far."""
        return self.mirrored().p_above(-threshold)

    def interval(self, level: float = 0.95) -> Interval:
        """Return the bounds after the last cluster; those of all earlier looks are in them."""
        tail = (1 - level) / 2
        return Interval(self.estimate, self.at_least(tail), self.at_most(tail), level)

    def at_least(self, alpha: float) -> float:
        """Return what the mean is below with probability alpha at most, after all looks so far."""
        return self._low(alpha)

    def at_most(self, alpha: float) -> float:
        """Return what the mean is above with probability alpha at most, after all looks so far."""
        return -self.mirrored()._low(alpha)

    def mirrored(self) -> Bets:
        return Bets(-self.sums, self.sizes, -self.highest, -self.lowest)

    def _low(self, alpha: float) -> float:
        """Return the bound, found among few means first and then between two of them."""
        low, step = self.lowest, (self.highest - self.lowest) / _COARSE
        for _ in range(2):
            means = np.linspace(low + step, low + step * (_COARSE - 1), _COARSE - 1)
            wealth = self._log_wealth(means).max(axis=0)
            low += step * int(np.logical_and.accumulate(wealth >= -math.log(alpha)).sum())
            step /= _COARSE
        return float(low)

    def _log_wealth(self, means: Floats) -> Floats:
        """Return the log wealth after each cluster against each mean, shape (clusters, means)."""
        gains = self.sums[:, None] - self.sizes[:, None] * means
        count = np.arange(1, gains.shape[0] + 1)[:, None]
        width = self.sizes.max() * (self.highest - self.lowest)
        middle = self.sizes.mean() * ((self.highest + self.lowest) / 2 - means)
        # What a stake is chosen from may be known only from clusters before; one made-up cluster
        # in the middle of the range, with the largest variance there is, stands for none.
        total = middle + np.cumsum(gains, axis=0) - gains
        squares = np.cumsum(gains**2, axis=0) - gains**2 + middle**2 + width**2 / 4
        mean = total / count
        variance = np.maximum(squares / count - mean**2, 0.0)
        stakes = mean / (variance + mean**2 + np.finfo(float).tiny)
        most = _STAKE / (self.sizes.max() * (means - self.lowest) + np.finfo(float).tiny)
        wealth: Floats = np.cumsum(np.log1p(np.clip(stakes, 0.0, most) * gains), axis=0)
        return wealth


def bets(
    values: npt.ArrayLike,
    clusters: npt.ArrayLike | None = None,
    *,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Bets:
    """Return the bets on values in the order in which they came, or their clusters began.

    Args:
        values: shape (n,); a difference of two scores between 0 and 1 has the bounds (-1, 1).
        clusters: one id per value, shape (n,), or None where every value stands alone.
        bounds: between which every value must be, known before any was seen.

    Raises:
        InvalidRequest: no values, or one of them is outside the bounds.
    """
    data = np.asarray(values, dtype=np.float64)
    if data.size == 0 or not ((data >= bounds[0]) & (data <= bounds[1])).all():
        raise InvalidRequest(
            f"Bets need values, all of them between {bounds[0]!r} and {bounds[1]!r}"
        )
    if clusters is None:
        return Bets(data, np.ones_like(data), *bounds)
    _, first, codes = np.unique(np.asarray(clusters), return_index=True, return_inverse=True)
    order = np.argsort(first)
    sums: Floats = np.bincount(codes, weights=data).astype(np.float64, copy=False)
    return Bets(sums[order], np.bincount(codes).astype(np.float64)[order], *bounds)

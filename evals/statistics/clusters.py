"""Means of values in clusters: cases that share a question or document count as one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from evals.statistics.intervals import Floats, Interval
from infra.errors import InvalidRequest

_CELLS = 2_000_000
"""Draws held in memory at once."""


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """A mean over cases and its studentised deviations when clusters are drawn again."""

    estimate: float
    error: float
    """Standard error of the mean, robust to what cases of a cluster share."""
    deviations: Floats
    """Of each resample, (its mean - estimate) / its standard error, sorted; shape (resamples,)."""

    def p_above(self, threshold: float) -> float:
        """Return the p-value of 'the mean is at most the threshold' against 'it is above'."""
        return self._tail(self.deviations, (self.estimate - threshold) / self.error)

    def p_below(self, threshold: float) -> float:
        """Return the p-value of 'the mean is at least the threshold' against 'it is below'."""
        return self._tail(-self.deviations[::-1], (threshold - self.estimate) / self.error)

    def interval(self, level: float = 0.95) -> Interval:
        """Return the two-sided interval; each of its bounds holds with (1 + level) / 2."""
        tail = (1 - level) / 2
        # Ranks as the p-values have them, so that a bound and a test of it say the same.
        rank = max(0, math.floor(tail * (self.deviations.size + 1)) - 1)
        high, low = self.deviations[-1 - rank], self.deviations[rank]
        return Interval(
            self.estimate,
            float(self.estimate - high * self.error),
            float(self.estimate - low * self.error),
            level,
        )

    @staticmethod
    def _tail(deviations: Floats, observed: float) -> float:
        beyond = deviations.size - int(np.searchsorted(deviations, observed, side="left"))
        return (1 + beyond) / (1 + deviations.size)


def totals(values: npt.ArrayLike, clusters: npt.ArrayLike | None) -> tuple[Floats, Floats]:
    """Return the sum and the number of the values of each cluster, both of shape (clusters,).

    Args:
        values: shape (n,).
        clusters: one id per value, shape (n,), or None where every value stands alone.

    Raises:
        InvalidRequest: there are not as many ids as values.
    """
    data = np.asarray(values, dtype=np.float64)
    if clusters is None:
        return data, np.ones_like(data)
    ids = np.asarray(clusters)
    if ids.shape != data.shape:
        raise InvalidRequest(
            f"{data.shape!r} values have clusters of shape {ids.shape!r}; give one id per value"
        )
    _, codes = np.unique(ids, return_inverse=True)
    sums: Floats = np.bincount(codes, weights=data).astype(np.float64, copy=False)
    return sums, np.bincount(codes).astype(np.float64)


def bootstrap(
    values: npt.ArrayLike,
    clusters: npt.ArrayLike | None = None,
    *,
    resamples: int = 9_999,
    seed: int = 0,
) -> Bootstrap:
    """Draw whole clusters again and return the mean with its studentised deviations.

    A resample is the sums and sizes of as many clusters, drawn with replacement; its mean is the
    ratio of the two. Studentising it (bootstrap-t: Hall, Annals of Statistics 1988) keeps the
    level with 30 clusters and with skewed values, where percentiles are too narrow.

    Args:
        values: shape (n,).
        clusters: one id per value, shape (n,), or None where every value stands alone.
        resamples: how many.
        seed: of the draws.

    Raises:
        InvalidRequest: fewer than two clusters, a value that is not finite, or no variation.
    """
    sums, sizes = totals(values, clusters)
    if sums.size < 2 or not np.isfinite(sums).all():
        raise InvalidRequest(
            f"A bootstrap needs two clusters of finite values; there are {sums.size}"
        )
    estimate = float(sums.sum() / sizes.sum())
    error = _errors(sums[None], sizes[None])[0]
    if error <= np.finfo(float).eps * max(1.0, abs(estimate)):
        raise InvalidRequest(f"All {sums.size} clusters have the same mean; nothing can be drawn")
    rng, parts = np.random.default_rng(seed), []
    for start in range(0, resamples, batch := max(1, _CELLS // sums.size)):
        count = min(batch, resamples - start)
        drawn = rng.integers(sums.size, size=(count, sums.size))
        parts.append(_deviations(sums[drawn], sizes[drawn], estimate))
    return Bootstrap(estimate, float(error), np.sort(np.concatenate(parts)))


def _deviations(sums: Floats, sizes: Floats, centre: float) -> Floats:
    gaps = sums.sum(axis=1) / sizes.sum(axis=1) - centre
    errors = _errors(sums, sizes)
    # A resample without variation is infinitely far out, on its side: this errs to the wide.
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(gaps == 0, 0.0, gaps / errors)


def _errors(sums: Floats, sizes: Floats) -> Floats:
    """Return standard errors of ratios, by linearisation; inputs of shape (rows, clusters)."""
    groups = sums.shape[1]
    cases = sizes.sum(axis=1)
    residuals = sums - (sums.sum(axis=1) / cases)[:, None] * sizes
    squares: Floats = np.sqrt((residuals**2).sum(axis=1) * groups / (groups - 1)) / cases
    return squares

"""Quantiles of numbers that stream by, exact while few and within 1 % of the ranks after."""

from __future__ import annotations

import numpy as np

from infra.datasets.moments import Floats


class Quantiles:
    """Order statistics from a ladder of buffers, after Manku, Rajagopalan and Lindsay (1998).

    A full buffer is sorted and every other value moves up with twice the weight, the odd and the
    even ones in turn. Exact until `capacity` values came; then a rank is off by at most
    `log2(n / capacity) / capacity` of n, and by far less on average. Nothing is drawn at random, so
    the same values in the same order give the same answer.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._levels: list[Floats] = [np.empty(0)]
        self._turns = [0]

    @property
    def exact(self) -> bool:
        return len(self._levels) == 1

    def add(self, values: Floats) -> None:
        self._take(0, values)

    def merge(self, other: Quantiles) -> None:
        for level, values in enumerate(other._levels):
            self._take(level, values)

    def weighted(self) -> tuple[Floats, Floats]:
        """Return the values that are left, sorted, and how many each stands for."""
        values = np.concatenate(self._levels)
        weights = np.concatenate(
            [np.full(len(kept), 2.0**level) for level, kept in enumerate(self._levels)]
        )
        order = np.argsort(values, kind="stable")
        return values[order], weights[order]

    def at(self, shares: Floats) -> Floats:
        """Return quantiles; between two values by linear interpolation while exact."""
        values, weights = self.weighted()
        if self.exact:
            with np.errstate(over="ignore", invalid="ignore"):
                between = np.quantile(values, shares)
            # Halfway between the largest and the smallest float lies nothing that is a float.
            below = np.quantile(values, shares, method="lower")
            return np.asarray(np.where(np.isfinite(between), between, below), np.float64)
        ranks = np.cumsum(weights)
        positions = np.searchsorted(ranks, shares * ranks[-1], side="left")
        return np.asarray(values[np.minimum(positions, len(values) - 1)], np.float64)

    def _take(self, level: int, values: Floats) -> None:
        while level >= len(self._levels):
            self._levels.append(np.empty(0))
            self._turns.append(0)
        merged = np.concatenate([self._levels[level], values])
        if len(merged) <= self._capacity:
            self._levels[level] = merged
            return
        merged.sort()
        paired = len(merged) // 2 * 2
        self._levels[level] = merged[paired:]
        turn = self._turns[level]
        self._turns[level] = 1 - turn
        self._take(level + 1, merged[turn:paired:2])

"""The distribution of numbers that stream by: range, moments, quantiles, histogram."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from infra.datasets.moments import Floats, Moments
from infra.datasets.profile import BINS, STEPS, Numbers
from infra.datasets.quantiles import Quantiles

_SIGNIFICANT = 12
"""Digits of derived numbers; further ones differ between processors, and with them the identity."""


@dataclass(slots=True)
class Range:
    minimum: Any = None
    maximum: Any = None

    def add(self, minimum: Any, maximum: Any) -> None:
        if minimum is None:
            return
        self.minimum = minimum if self.minimum is None else min(self.minimum, minimum)
        self.maximum = maximum if self.maximum is None else max(self.maximum, maximum)


class Distribution:
    def __init__(self, capacity: int) -> None:
        self._moments = Moments()
        self._quantiles = Quantiles(capacity)
        self._range = Range()

    def add(self, values: Floats) -> None:
        if len(values):
            self._moments.add(values)
            self._quantiles.add(values)
            self._range.add(float(values.min()), float(values.max()))

    def merge(self, other: Distribution) -> None:
        self._moments.merge(other._moments)
        self._quantiles.merge(other._quantiles)
        self._range.add(other._range.minimum, other._range.maximum)

    def summary(self) -> Numbers | None:
        if not self._moments.count:
            return None
        low, high = self._range.minimum, self._range.maximum
        between = [_rounded(value) for value in self._quantiles.at(np.arange(1, STEPS) / STEPS)]
        edges = _edges(low, high)
        values, weights = self._quantiles.weighted()
        counts, _ = np.histogram(values, bins=edges, weights=weights)
        return Numbers(
            count=self._moments.count,
            minimum=low,
            maximum=high,
            mean=_finite(self._moments.mean),
            std=_finite(self._moments.std),
            quantiles=(low, *(min(max(value, low), high) for value in between), high),
            exact=self._quantiles.exact,
            edges=tuple(edges.tolist()),
            counts=tuple(int(count) for count in counts),
        )


def _edges(low: float, high: float) -> Floats:
    if low == high:
        return np.array([low, high])
    # The width of the range may be no float, and rounding may put one edge before another.
    shares = np.arange(BINS + 1) / BINS
    return np.maximum.accumulate(np.clip(low * (1 - shares) + high * shares, low, high))


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else _rounded(value)


def _rounded(value: float) -> float:
    return float(f"{value:.{_SIGNIFICANT}g}")

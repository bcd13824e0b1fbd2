"""The number of distinct values that stream by, exact while few and estimated after."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]


class Distinct:
    """A count of distinct values from the k smallest of their hashes (Bar-Yossef et al. 2002).

    Exact until `capacity` distinct values came; then the standard error is `1 / sqrt(capacity)`.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._smallest: Hashes = np.empty(0, np.uint64)
        self._waiting: list[Hashes] = []
        self._exact = True

    @property
    def exact(self) -> bool:
        self._settle()
        return self._exact

    def add(self, hashes: Hashes) -> None:
        """Take 64-bit hashes, which need not be spread evenly."""
        self._take(_mix(hashes))

    def merge(self, other: Distinct) -> None:
        self._exact = self.exact and other.exact
        self._take(other._smallest)

    def count(self) -> int:
        """Return the number; an estimate with three digits, as more would be noise."""
        if self.exact:
            return len(self._smallest)
        share = (float(self._smallest[-1]) + 1) / 2.0**64
        estimate = (len(self._smallest) - 1) / share
        digits = 2 - math.floor(math.log10(estimate))
        return int(round(estimate, digits))

    def _take(self, hashes: Hashes) -> None:
        if len(self._smallest) == self._capacity:
            largest = self._smallest[-1]
            self._exact = self._exact and not (hashes > largest).any()
            hashes = hashes[hashes < largest]
        self._waiting.append(hashes)
        if sum(map(len, self._waiting)) >= self._capacity:
            self._settle()

    def _settle(self) -> None:
        if not self._waiting:
            return
        merged = np.concatenate([self._smallest, *self._waiting])
        merged.sort()
        distinct = merged[np.diff(merged, prepend=~merged[:1]) != 0]
        self._exact = self._exact and len(distinct) <= self._capacity
        self._smallest = distinct[: self._capacity]
        self._waiting.clear()


def _mix(hashes: Hashes) -> Hashes:
    # The finalizer of splitmix64: what is near in becomes far apart.
    with np.errstate(over="ignore"):
        mixed = hashes ^ (hashes >> np.uint64(30))
        mixed = mixed * np.uint64(0xBF58476D1CE4E5B9)
        mixed ^= mixed >> np.uint64(27)
        mixed = mixed * np.uint64(0x94D049BB133111EB)
        return np.asarray(mixed ^ (mixed >> np.uint64(31)), np.uint64)

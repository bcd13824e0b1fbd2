"""Mean and variance of numbers that stream by."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(slots=True)
class Moments:
    """Count, mean and variance, combined as Chan, Golub and LeVeque (1979) do."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    """Sum of squared differences from the mean."""

    def add(self, values: Floats) -> None:
        if len(values):
            with np.errstate(over="ignore", invalid="ignore"):
                mean = float(values.mean())
                squares = float(((values - mean) ** 2).sum())
            self.merge(Moments(len(values), mean, squares))

    def merge(self, other: Moments) -> None:
        count = self.count + other.count
        if not count:
            return
        delta = other.mean - self.mean
        self.mean += delta * (other.count / count)
        self.squares += other.squares + delta * delta * (self.count * other.count / count)
        self.count = count

    @property
    def std(self) -> float | None:
        """Of a sample; `None` for fewer than two values."""
        return math.sqrt(self.squares / (self.count - 1)) if self.count > 1 else None

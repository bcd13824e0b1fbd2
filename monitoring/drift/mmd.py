"""Maximum mean discrepancy of vectors or numbers: a kernel two-sample test by permutation."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from monitoring.columns import Column, Floats
from monitoring.detector import NUMBERS, VECTORS, Kinds, Parameters, obstacle
from monitoring.findings import Finding

NAME = "mmd"
_EXAMPLES = 5
_BLOCK = 500
"""Permutations at once."""


class MaximumMeanDiscrepancy(Parameters):
    """Gretton et al., JMLR 2012, with a Gaussian kernel as wide as the median distance.

    The labels of both windows together are permuted, and what was seen is counted among the
    permutations, so the p-value is exact whatever the kernel. The effect is the root of the
    unbiased estimate, whose mean is 0 where nothing moved.
    """

    reads: ClassVar[Kinds] = VECTORS | NUMBERS

    least_effect: float = 0.05
    """Between 0 and 1.41. In 1 dimension a shift by 0.12 standard deviations, in 32 by 0.5."""
    rows: int = Field(1_000, ge=50, le=4_000)
    """Drawn from each window at most: time and memory grow with the square."""
    draws: int = Field(999, ge=99)

    def compare(self, reference: Column, current: Column) -> Finding:
        found = obstacle(NAME, reference, current, reads=self.reads, least_rows=self.least_rows)
        if found:
            return found
        rng = np.random.default_rng(self.seed)
        before, _ = drawn(reference, self.rows, rng)
        now, places = drawn(current, self.rows, rng)
        kernel = gaussian(np.concatenate([before, now]))
        is_now = np.zeros(len(kernel))
        is_now[len(before) :] = 1
        observed = float(discrepancies(kernel, is_now[:, None])[0])
        p = self._p_value(kernel, is_now, observed, rng)
        # The witness function is largest where the window has mass that the reference lacks.
        witness = kernel[is_now == 1] @ (is_now / is_now.sum() - (1 - is_now) / (1 - is_now).sum())
        strangest = np.argsort(-witness, kind="stable")[:_EXAMPLES]
        return Finding(
            NAME,
            "stable",
            f"Kernel distance of {len(now)} rows of the window and {len(before)} of the reference",
            statistic=observed,
            p_value=p,
            effect=math.sqrt(max(0.0, observed)),
            effect_unit="kernel distance",
            least_effect=self.least_effect,
            examples=tuple(int(place) for place in places[strangest]),
        ).judged(self.level)

    def _p_value(
        self, kernel: Floats, is_now: Floats, observed: float, rng: np.random.Generator
    ) -> float:
        above = 0
        for first in range(0, self.draws, _BLOCK):
            size = min(_BLOCK, self.draws - first)
            labels = rng.permuted(np.repeat(is_now[:, None], size, axis=1), axis=0)
            above += int((discrepancies(kernel, labels) >= observed - 1e-12).sum())
        return (1 + above) / (1 + self.draws)


def drawn(
    column: Column, most: int, rng: np.random.Generator
) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Return present rows, (n, dimension), at most so many, and where in the column they stand."""
    places = np.flatnonzero(~column.is_missing())
    if places.size > most:
        places = np.sort(rng.choice(places, size=most, replace=False))
    rows: Floats = np.asarray(column.data[places], dtype=np.float64).reshape(places.size, -1)
    return rows, places


def gaussian(points: Floats) -> Floats:
    """Return the kernel matrix exp(-d2 / median d2), shape (n, n)."""
    centred = points - points.mean(axis=0)
    norms = (centred**2).sum(axis=1)
    squares = np.maximum(norms[:, None] + norms[None, :] - 2 * centred @ centred.T, 0.0)
    positive = squares[squares > norms.mean() * 1e-12]
    width = float(np.median(positive)) if positive.size else 1.0
    kernel: Floats = np.exp(squares / -width)
    np.fill_diagonal(kernel, 1.0)
    return kernel


def discrepancies(kernel: Floats, labels: Floats) -> Floats:
    """Return the unbiased squared discrepancy of each labelling, (draws,), of labels (n, draws)."""
    m = labels.sum(axis=0)
    n = len(kernel) - m
    total, row_sums = float(kernel.sum()), kernel.sum(axis=1)
    within = (labels * (kernel @ labels)).sum(axis=0)
    touching = row_sums @ labels
    rest = total - 2 * touching + within
    found: Floats = (
        (within - m) / (m * (m - 1))
        + (rest - n) / (n * (n - 1))
        - 2 * (touching - within) / (n * m)
    )
    return found


build = MaximumMeanDiscrepancy.model_validate

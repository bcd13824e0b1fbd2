"""Kolmogorov-Smirnov: the largest distance of two cumulative distributions of numbers."""

from __future__ import annotations

import math
import warnings
from typing import ClassVar

import numpy as np

from infra.plugins import require
from monitoring.columns import EXTRA, Column
from monitoring.detector import NUMBERS, Kinds, Parameters, obstacle
from monitoring.drift import _cells
from monitoring.findings import Finding

NAME = "kolmogorov_smirnov"
SORTED = 100_000
"""Up to so many values of both windows they are sorted; beyond, they are counted into cells."""
EXACT = 250_000
"""Up to this product of sizes the p-value is that of the exact distribution."""


class KolmogorovSmirnov(Parameters):
    """Smirnov's two-sample test, by scipy.

    Counted into cells, the distance is at most what all values would give, so the p-value is at
    least as large: a large window is never less safe, and a cell holds a few thousandths of it.
    """

    reads: ClassVar[Kinds] = NUMBERS

    least_effect: float = 0.05
    """Of the rows: at some value the shares of rows below it must differ by so much."""

    def compare(self, reference: Column, current: Column) -> Finding:
        found = obstacle(NAME, reference, current, reads=self.reads, least_rows=self.least_rows)
        if found:
            return found
        distance, p, where, shares = self._test(reference, current)
        return Finding(
            NAME,
            "stable",
            f"{shares[1]:.1%} of the window lie at or below {where:.4g}, {shares[0]:.1%} of the "
            "reference",
            statistic=distance,
            p_value=max(p, math.ulp(0.0)),
            effect=distance,
            effect_unit="share of rows",
            least_effect=self.least_effect,
        ).judged(self.level)

    def _test(
        self, reference: Column, current: Column
    ) -> tuple[float, float, float, tuple[float, float]]:
        stats = require("scipy.stats", extra=EXTRA)
        first, second = reference.present, current.present
        n, m = first.size, second.size
        if n + m <= SORTED:
            with warnings.catch_warnings():
                # Where it cannot count paths, scipy takes the formula of large sizes, and warns.
                warnings.simplefilter("ignore", RuntimeWarning)
                method = "exact" if n * m <= EXACT else "asymp"
                result = stats.ks_2samp(first, second, method=method)
            where = float(result.statistic_location)
            shares = (float((first <= where).mean()), float((second <= where).mean()))
            return float(result.statistic), float(result.pvalue), where, shares
        cells = _cells.of_numbers(first, second, seed=self.seed)
        below, under = np.cumsum(cells.reference) / n, np.cumsum(cells.current) / m
        at = int(np.abs(below - under).argmax())
        distance = float(abs(below[at] - under[at]))
        p = float(stats.kstwo.sf(distance, round(n * m / (n + m))))
        positions = cells.positions
        where = float(positions[at]) if positions is not None else math.nan
        return distance, p, where, (float(below[at]), float(under[at]))


build = KolmogorovSmirnov.model_validate

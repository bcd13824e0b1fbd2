"""Chi-squared: whether categories are as frequent as they were, new and lost ones among them."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
from pydantic import Field

from infra.plugins import require
from monitoring.columns import EXTRA, Column, Floats
from monitoring.detector import CATEGORIES, Kinds, Parameters, obstacle
from monitoring.drift import _cells, _shares
from monitoring.drift._cells import Cells, Counts
from monitoring.drift._chance import by_permutation
from monitoring.findings import Finding

NAME = "chi_squared"
LEAST_EXPECTED = 5.0
"""Below this expected count in a cell its distribution is not that of the formula: permute."""


class ChiSquared(Parameters):
    """Pearson's test of homogeneity, by scipy where counts are large, else by permutation.

    The effect is Cohen's w of the two distributions, less what chance gives: the root of
    (chi2 - df) (1 / n + 1 / m). Unlike Cramer's V it does not shrink when the reference grows.
    """

    reads: ClassVar[Kinds] = CATEGORIES

    least_effect: float = 0.1
    """0.1 is small, 0.3 medium, 0.5 large (Cohen 1988)."""
    draws: int = Field(1_999, ge=99)

    def compare(self, reference: Column, current: Column) -> Finding:
        found = obstacle(NAME, reference, current, reads=self.reads, least_rows=self.least_rows)
        if found:
            return found
        cells = _cells.of_categories(reference, current)
        n, m = int(cells.reference.sum()), int(cells.current.sum())
        chi2 = float(statistic(cells.reference[None, :], cells.current[None, :])[0])
        freedom = cells.reference.size - 1
        excess = max(0.0, chi2 - freedom) * (1 / n + 1 / m)
        return Finding(
            NAME,
            "stable",
            _shares.explain(cells),
            statistic=chi2,
            p_value=max(self._p_value(cells, chi2, freedom), math.ulp(0.0)),
            effect=math.sqrt(excess),
            effect_unit="Cohen's w",
            least_effect=self.least_effect,
            causes=_shares.causes(cells),
        ).judged(self.level)

    def _p_value(self, cells: Cells, chi2: float, freedom: int) -> float:
        if freedom == 0:
            return 1.0
        smaller = min(cells.reference.sum(), cells.current.sum())
        expected = cells.pooled.min() * smaller / cells.pooled.sum()
        if expected < LEAST_EXPECTED:
            return by_permutation(cells, statistic, draws=self.draws, seed=self.seed).p_value
        return float(require("scipy.stats", extra=EXTRA).chi2.sf(chi2, freedom))


def statistic(reference: Counts, current: Counts) -> Floats:
    """Return Pearson's chi-squared of each pair of rows, shape (draws,)."""
    n, m = reference.sum(axis=1, keepdims=True), current.sum(axis=1, keepdims=True)
    expected = (reference + current) * (m / (n + m))
    gap = (current - expected) ** 2
    parts = gap / np.maximum(expected, np.finfo(float).tiny)
    values: Floats = parts.sum(axis=1) * ((n + m) / n)[:, 0]
    return values


build = ChiSquared.model_validate

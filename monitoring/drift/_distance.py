"""Distances of two distributions as detectors: calibrated by permutation at these very sizes."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from monitoring.columns import Column, Floats
from monitoring.detector import CATEGORIES, NUMBERS, Kinds, Parameters, obstacle
from monitoring.drift import _cells, _shares
from monitoring.drift._cells import Cells, Counts
from monitoring.drift._chance import Chance, by_permutation
from monitoring.findings import Finding


class Distance(Parameters):
    """A distance of shares, of numbers in cells of equal pooled count or of categories.

    A fixed threshold on such a distance alarms on small windows without any drift, because its
    mean grows as windows shrink. Here the threshold is what permutations of the two windows give,
    and the effect is what lies above their mean.
    """

    reads: ClassVar[Kinds] = NUMBERS | CATEGORIES
    name: ClassVar[str]
    unit: ClassVar[str]

    cells: int = Field(10, ge=2, le=100)
    """For numbers."""
    draws: int = Field(1_999, ge=99)
    """Permutations at most; the p-value is not below 1 / (draws + 1)."""
    least_effect: float = 0.1

    def statistic(self, reference: Counts, current: Counts) -> Floats:
        """Return the distance of each pair of rows of counts, shape (draws,)."""
        raise NotImplementedError

    def effect(self, chance: Chance) -> float:
        return chance.excess

    def compare(self, reference: Column, current: Column) -> Finding:
        found = obstacle(
            self.name, reference, current, reads=self.reads, least_rows=self.least_rows
        )
        if found:
            return found
        cells = self._count(reference, current)
        chance = by_permutation(cells, self.statistic, draws=self.draws, seed=self.seed)
        return Finding(
            self.name,
            "stable",
            f"{_shares.explain(cells)}; chance alone gives {chance.mean:.3g}",
            statistic=chance.statistic,
            p_value=chance.p_value,
            effect=self.effect(chance),
            effect_unit=self.unit,
            least_effect=self.least_effect,
            causes=_shares.causes(cells),
        ).judged(self.level)

    def _count(self, reference: Column, current: Column) -> Cells:
        cells = _cells.of_columns(reference, current, seed=self.seed)
        return cells.coarser(self.cells) if reference.kind == "numbers" else cells


def shares(counts: Counts) -> Floats:
    """Return shares of counts, shape (draws, cells), half a row in every cell beforehand.

    Without it a distance of logarithms has no value where a cell is empty (Krichevsky & Trofimov).
    """
    padded = counts + 0.5
    found: Floats = padded / padded.sum(axis=1, keepdims=True)
    return found


def divergence(first: Floats, second: Floats) -> Floats:
    """Return Kullback and Leibler's divergence of each pair of rows, in nats, shape (draws,)."""
    found: Floats = (first * np.log(first / second)).sum(axis=1)
    return found

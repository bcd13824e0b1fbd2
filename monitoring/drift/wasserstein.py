"""Wasserstein distance of numbers in standard deviations, with a threshold from permutations."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from monitoring.columns import Column, Floats
from monitoring.detector import NUMBERS, Kinds, Parameters, obstacle
from monitoring.drift import _cells
from monitoring.drift._cells import Counts
from monitoring.drift._chance import by_permutation
from monitoring.findings import Finding

NAME = "wasserstein"


class Wasserstein(Parameters):
    """The mean way a value must be moved to make one distribution of the other, by cells.

    In standard deviations of the reference; of both windows where the reference is constant.
    """

    reads: ClassVar[Kinds] = NUMBERS

    least_effect: float = 0.1
    """In standard deviations."""
    cells: int = Field(128, ge=8, le=_cells.FINE)
    draws: int = Field(1_999, ge=99)

    def compare(self, reference: Column, current: Column) -> Finding:
        found = obstacle(NAME, reference, current, reads=self.reads, least_rows=self.least_rows)
        if found:
            return found
        first, second = reference.present, current.present
        cells = _cells.of_numbers(first, second, seed=self.seed, fine=self.cells)
        positions = np.zeros(1) if cells.positions is None else cells.positions
        scale = float(first.std()) or float(np.concatenate([first, second]).std()) or 1.0
        gaps = np.diff(positions) / scale

        def statistic(reference: Counts, current: Counts) -> Floats:
            r = np.cumsum(reference, axis=1)[:, :-1] / reference.sum(axis=1, keepdims=True)
            c = np.cumsum(current, axis=1)[:, :-1] / current.sum(axis=1, keepdims=True)
            way: Floats = np.abs(c - r) @ gaps
            return way

        chance = by_permutation(cells, statistic, draws=self.draws, seed=self.seed)
        return Finding(
            NAME,
            "stable",
            f"The mean is {second.mean():.4g}, it was {first.mean():.4g}; the median "
            f"{np.median(second):.4g}, it was {np.median(first):.4g}; chance alone moves values by "
            f"{chance.mean:.3g} standard deviations",
            statistic=chance.statistic,
            p_value=chance.p_value,
            effect=chance.excess,
            effect_unit="standard deviations",
            least_effect=self.least_effect,
        ).judged(self.level)


build = Wasserstein.model_validate

"""Population stability index of numbers or categories, with a threshold from permutations."""

from __future__ import annotations

from typing import ClassVar

from monitoring.columns import Floats
from monitoring.drift._cells import Counts
from monitoring.drift._distance import Distance, divergence, shares


class PopulationStabilityIndex(Distance):
    """The sum of (c - r) ln(c / r) over cells, which is the divergence in both directions.

    Where nothing moved, its mean is about (cells - 1)(1 / n + 1 / m): 0.18 for two windows of 100
    rows and 10 cells, above the customary threshold of 0.1.
    """

    name: ClassVar[str] = "psi"
    unit: ClassVar[str] = "PSI"

    least_effect: float = 0.1
    """By the field's custom 0.1 is some change, 0.25 much."""

    def statistic(self, reference: Counts, current: Counts) -> Floats:
        r, c = shares(reference), shares(current)
        return divergence(c, r) + divergence(r, c)


build = PopulationStabilityIndex.model_validate

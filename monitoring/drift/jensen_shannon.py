"""Jensen-Shannon distance of numbers or categories, with a threshold from permutations."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from monitoring.columns import Floats
from monitoring.drift._cells import Counts
from monitoring.drift._chance import Chance
from monitoring.drift._distance import Distance, divergence, shares


class JensenShannon(Distance):
    """The root of Lin's divergence (IEEE Transactions on Information Theory 1991) in bits."""

    name: ClassVar[str] = "jensen_shannon"
    unit: ClassVar[str] = "Jensen-Shannon distance"

    least_effect: float = 0.1
    """Between 0 and 1; a shift of a normal by a quarter of its standard deviation is about 0.1."""

    def statistic(self, reference: Counts, current: Counts) -> Floats:
        """Return the divergence, the square of the distance: its means can be subtracted."""
        r, c = shares(reference), shares(current)
        middle = (r + c) / 2
        found: Floats = (divergence(r, middle) + divergence(c, middle)) / (2 * np.log(2))
        return found

    def effect(self, chance: Chance) -> float:
        return math.sqrt(chance.excess)


build = JensenShannon.model_validate

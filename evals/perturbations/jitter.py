"""Jitter: the numbers of a row or vector a little off, in their unit, sign and range."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import Any

from pydantic import Field

from evals.perturbation import (
    Changed,
    NotApplicable,
    Parameters,
    Perturbed,
    Surroundings,
    is_number,
)
from evals.perturbations._rows import NO_ROW, changed, features
from evals.trial import Case

_NONE_CHANGES = "no number of it changes by so little"


class Jitter(Parameters):
    """Each number is multiplied by 1 + `deviation` times a normal draw, of at most 3 either way.

    Whole numbers stay whole, none changes its sign, and none leaves the range that its column has
    in the dataset. Whole numbers of few values are codes, such as of weekdays, and stay.
    """

    deviation: float = Field(default=0.02, gt=0, le=0.3)
    columns: tuple[str, ...] = ()
    """Which may change; all numbers if none is named."""
    codes: int = Field(default=12, ge=0)
    """Whole numbers of at most so many values in the dataset are codes."""

    def perturb(self, case: Case, draw: random.Random, around: Surroundings) -> Perturbed:
        given = case.input
        if isinstance(given, list) and given and all(is_number(each) for each in given):
            moved = [self._moved(each, draw) for each in given]
            return Changed(moved) if moved != given else NotApplicable(_NONE_CHANGES)
        if not isinstance(given, Mapping):
            return NO_ROW
        new: dict[str, Any] = {}
        for name in features(case, self.columns):
            value, seen = given[name], around.numbers.get(name)
            if not is_number(value) or seen is None:
                continue
            if seen.whole is None or seen.whole > self.codes:
                new[name] = min(max(self._moved(value, draw), seen.low), seen.high)
        return changed(case, new, why=_NONE_CHANGES)

    def _moved(self, value: float, draw: random.Random) -> float:
        factor = 1 + self.deviation * min(3.0, max(-3.0, draw.gauss(0.0, 1.0)))
        moved = value * factor
        if not math.isfinite(moved):
            return value
        return round(moved) if isinstance(value, int) else moved


build = Jitter.model_validate

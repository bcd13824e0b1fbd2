"""Noise features: columns of chance beside a row's own, which a model must not need or mind."""

from __future__ import annotations

import random
from collections.abc import Mapping

from pydantic import Field

from evals.perturbation import Changed, Parameters, Perturbed, Surroundings
from evals.perturbations._rows import NO_ROW
from evals.trial import Case


class NoiseFeatures(Parameters):
    """Their values are normal with mean 0 and deviation 1."""

    count: int = Field(default=3, ge=1, le=100)
    first: bool = False
    """Whether they stand before the row's own, where a model that goes by places would fall."""

    def perturb(self, case: Case, draw: random.Random, around: Surroundings) -> Perturbed:
        del around
        if not isinstance(case.input, Mapping):
            return NO_ROW
        noise: dict[str, float] = {}
        number = 0
        while len(noise) < self.count:
            number += 1
            name = f"noise_{number}"
            if name not in case.input:
                noise[name] = draw.gauss(0.0, 1.0)
        return Changed({**noise, **case.input} if self.first else {**case.input, **noise})


build = NoiseFeatures.model_validate

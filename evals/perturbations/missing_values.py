"""Missing values: some features of a row, drawn at random, become unknown."""

from __future__ import annotations

import random
from collections.abc import Mapping

from pydantic import Field

from evals.perturbation import NotApplicable, Parameters, Perturbed, Surroundings
from evals.perturbations._rows import NO_ROW, changed, features
from evals.trial import Case


class MissingValues(Parameters):
    """Values go missing completely at random; in truth, what is missing seldom is."""

    share: float = Field(default=0.2, gt=0, le=1)
    """Of the features that have a value; at least one goes."""
    columns: tuple[str, ...] = ()
    """Which may go missing; all if none is named."""

    def perturb(self, case: Case, draw: random.Random, around: Surroundings) -> Perturbed:
        del around
        if not isinstance(case.input, Mapping):
            return NO_ROW
        names = features(case, self.columns)
        if not names:
            return NotApplicable("every value that may go missing is missing already")
        gone = draw.sample(names, max(1, round(self.share * len(names))))
        return changed(case, dict.fromkeys(gone), why="nothing is there that could go missing")


build = MissingValues.model_validate

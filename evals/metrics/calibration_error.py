"""Calibration error: how far confidence is from the share that is right, over bins of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from pydantic import Field

from evals.metrics._predictions import OfPredictedSet, Predicted, probabilities


class CalibrationError(OfPredictedSet):
    """The expected calibration error (ECE) of the likeliest label; Guo et al. 2017.

    It is biased upwards where bins hold few cases: compare it at the same size only.
    """

    higher_is_better: ClassVar[bool] = False

    bins: int = Field(default=10, ge=2, le=100)
    """Of equal width."""

    def measure(self, pairs: Sequence[Predicted]) -> float:
        sure = np.array([max(probabilities(each.prediction).values()) for each in pairs])
        right = np.array([wanted == given for wanted, given in (each.pair for each in pairs)])
        places = np.minimum((sure * self.bins).astype(int), self.bins - 1)
        gaps = np.bincount(places, weights=right - sure, minlength=self.bins)
        return float(np.abs(gaps).sum() / len(pairs))


build = CalibrationError.model_validate

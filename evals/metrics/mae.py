"""MAE: how far the predicted number is from the expected one; the mean over cases is the MAE."""

from __future__ import annotations

from typing import Any, ClassVar

from evals.metric import Bounds
from evals.metrics._predictions import OfPredictions, number
from evals.trial import Case


class Mae(OfPredictions):
    bounds: ClassVar[Bounds] = (0.0, None)
    higher_is_better: ClassVar[bool] = False

    def measure(self, case: Case, prediction: Any) -> float:
        gap = number(prediction, "prediction") - number(case.expected, "reference")
        return abs(number(gap, "error"))


build = Mae.model_validate

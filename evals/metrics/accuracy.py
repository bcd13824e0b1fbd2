"""Accuracy: 1 where the likeliest label is the expected one, to the letter."""

from __future__ import annotations

from typing import Any, ClassVar

from evals.metrics._answers import label
from evals.metrics._predictions import OfPredictions
from evals.trial import Case


class Accuracy(OfPredictions):
    """Of classifiers; texts are compared by `exact_match`."""

    is_pass_or_fail: ClassVar[bool] = True

    def measure(self, case: Case, prediction: Any) -> float:
        return str(label(prediction)) in case.references


build = Accuracy.model_validate

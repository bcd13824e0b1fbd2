"""Accuracy: 1 where the label that was chosen is the expected one, to the letter."""

from __future__ import annotations

from typing import Any, ClassVar

from evals.metrics._predictions import OfPredictions
from evals.trial import Case, Output


class Accuracy(OfPredictions):
    """Of classifiers; texts are compared by `exact_match`."""

    is_pass_or_fail: ClassVar[bool] = True

    def read(self, output: Output) -> Any:
        return output.label

    def measure(self, case: Case, prediction: Any) -> float:
        return str(prediction) in case.references


build = Accuracy.model_validate

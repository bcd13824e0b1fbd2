"""Brier score: how far the probabilities are from what came true, squared, from 0 to 1."""

from __future__ import annotations

from typing import Any, ClassVar

from evals.metrics._predictions import OfPredictions, probabilities
from evals.trial import Case


class Brier(OfPredictions):
    """Brier 1950, halved, so that with two labels it is the usual squared error of one of them."""

    higher_is_better: ClassVar[bool] = False

    def measure(self, case: Case, prediction: Any) -> float:
        shares, wanted = probabilities(prediction), str(case.expected)
        labels = {*shares, wanted}
        squares = ((shares.get(each, 0.0) - (each == wanted)) ** 2 for each in sorted(labels))
        return min(1.0, sum(squares) / 2)


build = Brier.model_validate

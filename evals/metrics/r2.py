"""R2: the share of the variance of the expected numbers that the predictions explain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from evals.metric import Bounds
from evals.metrics._predictions import OfPredictedSet, Predicted, numbers
from evals.scores import Score
from infra.plugins import require


class R2(OfPredictedSet):
    """The coefficient of determination, as scikit-learn reckons it; 0 is as good as the mean."""

    bounds: ClassVar[Bounds] = (None, 1.0)

    def measure(self, pairs: Sequence[Predicted]) -> float | Score:
        metrics = require("sklearn.metrics", extra="evals")
        wanted, given = numbers(pairs)
        if len(set(wanted)) < 2:
            return Score.unscored("the expected numbers do not vary")
        return float(metrics.r2_score(wanted, given))


build = R2.model_validate

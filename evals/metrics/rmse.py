"""RMSE: the root of the mean squared error of predicted numbers, over the whole set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from evals.metric import Bounds
from evals.metrics._predictions import OfPredictedSet, Predicted, numbers
from infra.plugins import require


class Rmse(OfPredictedSet):
    """As scikit-learn reckons it."""

    bounds: ClassVar[Bounds] = (0.0, None)
    higher_is_better: ClassVar[bool] = False

    def measure(self, pairs: Sequence[Predicted]) -> float:
        metrics = require("sklearn.metrics", extra="evals")
        return float(metrics.root_mean_squared_error(*numbers(pairs)))


build = Rmse.model_validate

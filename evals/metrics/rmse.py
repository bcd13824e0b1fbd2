"""RMSE: the root of the mean squared error of predicted numbers, over the whole set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from evals.metric import Bounds
from evals.metrics._predictions import OfPredictions, Unusable, numbers
from evals.scores import Score
from evals.trial import Trial
from infra.plugins import require


class Rmse(OfPredictions):
    """As scikit-learn reckons it."""

    bounds: ClassVar[Bounds] = (0.0, None)
    higher_is_better: ClassVar[bool] = False

    def score_set(self, trials: Sequence[Trial]) -> Score:
        metrics = require("sklearn.metrics", extra="evals")
        try:
            wanted, given = numbers(trials)
        except Unusable as error:
            return Score.error(str(error))
        return Score.of(metrics.root_mean_squared_error(wanted, given))


build = Rmse.model_validate

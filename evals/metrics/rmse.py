"""RMSE: the root of the mean squared error of predicted numbers, over the whole set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from evals.metric import Bounds, Parameters
from evals.metrics._predictions import Unusable, numbers
from evals.scores import Score
from evals.trial import Trial
from infra.plugins import require


class Rmse(Parameters):
    """As scikit-learn reckons it."""

    bounds: ClassVar[Bounds] = (0.0, None)
    higher_is_better: ClassVar[bool] = False

    def score_set(self, trials: Sequence[Trial]) -> Score:
        metrics = require("sklearn.metrics", extra="evals")
        try:
            wanted, given = numbers(trials)
        except Unusable as error:
            return Score.error(str(error))
        if not wanted:
            return Score.unscored("no trial has both a reference and a prediction")
        return Score.of(metrics.root_mean_squared_error(wanted, given))


build = Rmse.model_validate

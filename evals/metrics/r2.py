"""R2: the share of the variance of the expected numbers that the predictions explain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from evals.metric import Bounds
from evals.metrics._predictions import OfPredictions, Unusable, numbers
from evals.scores import Score
from evals.trial import Trial
from infra.plugins import require


class R2(OfPredictions):
    """The coefficient of determination, as scikit-learn reckons it; 0 is as good as the mean."""

    bounds: ClassVar[Bounds] = (None, 1.0)

    def score_set(self, trials: Sequence[Trial]) -> Score:
        metrics = require("sklearn.metrics", extra="evals")
        try:
            wanted, given = numbers(trials)
        except Unusable as error:
            return Score.error(str(error))
        if len(set(wanted)) < 2:
            return Score.unscored("the expected numbers do not vary")
        return Score.of(metrics.r2_score(wanted, given))


build = R2.model_validate

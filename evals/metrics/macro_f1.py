"""Macro F1: the mean over labels of the F1 of each, of a classifier over the whole set."""

from __future__ import annotations

from collections.abc import Sequence

from evals.metrics._predictions import OfPredictions, predicted
from evals.scores import Score
from evals.trial import Trial
from infra.plugins import require


class MacroF1(OfPredictions):
    """As scikit-learn reckons it; a label that is never predicted counts 0."""

    def score_set(self, trials: Sequence[Trial]) -> Score:
        metrics = require("sklearn.metrics", extra="evals")
        wanted, given = zip(*(each.pair for each in predicted(trials)), strict=True)
        return Score.of(metrics.f1_score(wanted, given, average="macro", zero_division=0.0))


build = MacroF1.model_validate

"""Macro F1: the mean over labels of the F1 of each, of a classifier over the whole set."""

from __future__ import annotations

from collections.abc import Sequence

from evals.metric import Parameters
from evals.metrics._answers import label
from evals.scores import Score
from evals.trial import Trial
from infra.plugins import require


class MacroF1(Parameters):
    """As scikit-learn reckons it; a label that is never predicted counts 0."""

    def score_set(self, trials: Sequence[Trial]) -> Score:
        metrics = require("sklearn.metrics", extra="evals")
        pairs = [
            (str(trial.case.expected), str(label(trial.output.prediction)))
            for trial in trials
            if trial.case.expected is not None
            and trial.output is not None
            and trial.output.prediction is not None
        ]
        if not pairs:
            return Score.unscored("no trial has both a reference and a prediction")
        wanted, given = zip(*pairs, strict=True)
        return Score.of(metrics.f1_score(wanted, given, average="macro", zero_division=0.0))


build = MacroF1.model_validate

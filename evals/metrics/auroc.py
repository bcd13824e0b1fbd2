"""AUROC: the chance that a case of a label is ranked above one that is not, over the whole set."""

from __future__ import annotations

from collections.abc import Sequence

from evals.metrics._predictions import OfPredictions, Unusable, predicted, probabilities
from evals.scores import Score
from evals.trial import Trial
from infra.plugins import require


class Auroc(OfPredictions):
    """The area under the receiver operating characteristic, as scikit-learn reckons it."""

    positive: str = ""
    """The label that is looked for; if absent, the mean over labels, each against all others."""

    def score_set(self, trials: Sequence[Trial]) -> Score:
        metrics = require("sklearn.metrics", extra="evals")
        pairs = predicted(trials)
        wanted = [str(each.expected) for each in pairs]
        labels = [self.positive] if self.positive else sorted(set(wanted))
        if not all(0 < wanted.count(each) < len(wanted) for each in labels) or not labels:
            return Score.unscored("the trials have no two labels to tell apart")
        try:
            shares = [probabilities(each.prediction) for each in pairs]
        except Unusable as error:
            return Score.error(str(error))
        areas = [
            metrics.roc_auc_score(
                [each == label for each in wanted], [each.get(label, 0.0) for each in shares]
            )
            for label in labels
        ]
        return Score.of(sum(areas) / len(areas))


build = Auroc.model_validate

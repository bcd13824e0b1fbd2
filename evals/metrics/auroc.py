"""AUROC: the chance that a case of a label is ranked above one that is not, over the whole set."""

from __future__ import annotations

from collections.abc import Sequence

from evals.metrics._predictions import OfPredictedSet, Predicted, probabilities
from evals.scores import Score
from infra.plugins import require


class Auroc(OfPredictedSet):
    """The area under the receiver operating characteristic, as scikit-learn reckons it."""

    positive: str = ""
    """The label that is looked for; if absent, the mean over labels, each against all others."""

    def measure(self, pairs: Sequence[Predicted]) -> float | Score:
        metrics = require("sklearn.metrics", extra="evals")
        wanted = [str(each.expected) for each in pairs]
        labels = [self.positive] if self.positive else sorted(set(wanted))
        if not all(0 < wanted.count(each) < len(wanted) for each in labels):
            return Score.unscored("the trials have no two labels to tell apart")
        shares = [probabilities(each.prediction) for each in pairs]
        areas = [
            metrics.roc_auc_score(
                [each == label for each in wanted], [each.get(label, 0.0) for each in shares]
            )
            for label in labels
        ]
        return float(sum(areas) / len(areas))


build = Auroc.model_validate

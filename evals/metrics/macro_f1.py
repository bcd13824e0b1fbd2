"""Macro F1: the mean over labels of the F1 of each, of a classifier over the whole set."""

from __future__ import annotations

from collections.abc import Sequence

from evals.metrics._predictions import OfPredictedSet, Predicted
from infra.plugins import require


class MacroF1(OfPredictedSet):
    """As scikit-learn reckons it; a label that is never predicted counts 0."""

    def measure(self, pairs: Sequence[Predicted]) -> float:
        metrics = require("sklearn.metrics", extra="evals")
        wanted, given = zip(*(each.pair for each in pairs), strict=True)
        return float(metrics.f1_score(wanted, given, average="macro", zero_division=0.0))


build = MacroF1.model_validate

"""Equalised odds: how far apart groups are in true or in false positives, whichever is further."""

from __future__ import annotations

from collections.abc import Sequence

from evals.metrics._fairness import Fairness
from evals.scores import Score
from infra.plugins import require


class EqualisedOdds(Fairness):
    """Hardt et al. 2016, as fairlearn reckons it; 0 errs alike in all groups."""

    def compare(
        self, wanted: Sequence[bool], given: Sequence[bool], groups: Sequence[str]
    ) -> Score:
        seen = set(zip(groups, wanted, strict=True))
        if len(seen) < 2 * len(set(groups)):
            # fairlearn takes a rate of nothing for 0, and the difference would be made up.
            return Score.unscored("a group has no case of one of the two outcomes")
        metrics = require("fairlearn.metrics", extra="evals")
        return Score.of(metrics.equalized_odds_difference(wanted, given, sensitive_features=groups))


build = EqualisedOdds.model_validate

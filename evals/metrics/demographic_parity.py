"""Demographic parity: how far apart the shares of groups are that a label is predicted for."""

from __future__ import annotations

from collections.abc import Sequence

from evals.metrics._fairness import Fairness
from evals.scores import Score
from infra.plugins import require


class DemographicParity(Fairness):
    """The largest share less the smallest, as fairlearn reckons it; 0 treats all groups alike."""

    def compare(
        self, wanted: Sequence[bool], given: Sequence[bool], groups: Sequence[str]
    ) -> Score:
        metrics = require("fairlearn.metrics", extra="evals")
        return Score.of(
            metrics.demographic_parity_difference(wanted, given, sensitive_features=groups)
        )


build = DemographicParity.model_validate

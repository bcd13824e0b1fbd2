"""What fairness is judged on: expected and predicted labels, and the group of each case."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from evals.metrics._predictions import OfPredictedSet, Predicted
from evals.scores import Score
from evals.trial import Case


class Fairness(OfPredictedSet):
    """The largest difference between groups, of a decision for or against one label."""

    higher_is_better: ClassVar[bool] = False

    column: str = "group"
    """Of the cases, or of their features: which group each belongs to."""
    positive: str = ""
    """The label that is decided for; needed where there are more than two."""

    def measure(self, pairs: Sequence[Predicted]) -> Score:
        rows = [(*each.pair, _group(each.trial.case, self.column)) for each in pairs]
        wanted, given, groups = zip(*rows, strict=True)
        if None in groups:
            return Score.error(f"a case has no column {self.column!r}, which says its group")
        if len(set(groups)) < 2:
            return Score.unscored(f"all cases are of one group by {self.column!r}")
        labels = sorted({*wanted, *given})
        if not self.positive and len(labels) > 2:
            return Score.error(f"there are labels {labels!r:.80}; name one as `positive`")
        # Of two labels either gives the same difference.
        positive = self.positive or labels[-1]
        return self.compare(
            [each == positive for each in wanted],
            [each == positive for each in given],
            [str(group) for group in groups],
        )

    @abstractmethod
    def compare(
        self, wanted: Sequence[bool], given: Sequence[bool], groups: Sequence[str]
    ) -> Score:
        """Return the difference between the groups, of which there are at least two."""


def _group(case: Case, column: str) -> object:
    if column in case.metadata:
        return case.metadata[column]
    return case.input.get(column) if isinstance(case.input, Mapping) else None

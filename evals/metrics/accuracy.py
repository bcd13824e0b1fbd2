"""Accuracy: 1 where the likeliest label is the expected one, to the letter."""

from __future__ import annotations

from typing import ClassVar

from evals.context import Context
from evals.metric import Parameters
from evals.metrics._answers import label
from evals.metrics._predictions import missing
from evals.scores import Score
from evals.trial import Case, Output


class Accuracy(Parameters):
    """Of classifiers; texts are compared by `exact_match`."""

    is_pass_or_fail: ClassVar[bool] = True

    async def score(self, case: Case, output: Output, context: Context) -> Score:
        del context
        known = missing(case, output)
        if known is not None:
            return known
        return Score.of(str(label(output.prediction)) in case.references)


build = Accuracy.model_validate

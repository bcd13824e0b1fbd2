"""Abstention: 1 where the target answered what has an answer, or refused what has none."""

from __future__ import annotations

from typing import ClassVar

from evals.context import Context
from evals.metric import Parameters
from evals.metrics._answers import SILENT
from evals.refusals import is_refusal, is_silent
from evals.scores import Score
from evals.trial import Case, Output


class Abstention(Parameters):
    """The accuracy of the decision to answer; whether the answer is right is not looked at."""

    version: ClassVar[int] = 2
    is_pass_or_fail: ClassVar[bool] = True

    async def score(self, case: Case, output: Output, context: Context) -> Score:
        del context
        wanted = case.answerable
        if wanted is None and case.references:
            wanted = True
        if wanted is None:
            return Score.unscored("the case does not say whether there is an answer")
        if is_silent(output):
            return Score.of(0.0, SILENT)
        if wanted == is_refusal(output):
            words = "refused what has an answer" if wanted else "answered what has no answer"
            return Score.of(0.0, words)
        return Score.of(1.0)


build = Abstention.model_validate

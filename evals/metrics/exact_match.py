"""Exact match: 1 where the answer is one of the references, compared as SQuAD does."""

from __future__ import annotations

from typing import ClassVar, Literal

from evals.context import Context
from evals.metric import Parameters
from evals.metrics._answers import said, settled, squad
from evals.scores import Score
from evals.trial import Case, Output


class ExactMatch(Parameters):
    """Rajpurkar et al. 2016. Of a classifier it is the accuracy."""

    version: ClassVar[int] = 2
    is_pass_or_fail: ClassVar[bool] = True

    normalise: Literal["squad", "none"] = "squad"
    """Whether case, punctuation and articles make no difference."""

    async def score(self, case: Case, output: Output, context: Context) -> Score:
        del context
        known = settled(case, output)
        if known is not None:
            return known
        change = squad if self.normalise == "squad" else str.strip
        answer = change(said(output))
        return Score.of(answer in {change(each) for each in case.references})


build = ExactMatch.model_validate

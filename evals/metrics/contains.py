"""Contains: 1 where the answer holds a reference, or with `match: all` every one of them."""

from __future__ import annotations

from typing import ClassVar, Literal

from evals.context import Context
from evals.metric import Parameters
from evals.metrics._answers import said, settled
from evals.scores import Score
from evals.trial import Case, Output


class Contains(Parameters):
    version: ClassVar[int] = 2
    is_pass_or_fail: ClassVar[bool] = True

    match: Literal["any", "all"] = "any"
    ignore_case: bool = True

    async def score(self, case: Case, output: Output, context: Context) -> Score:
        del context
        known = settled(case, output)
        if known is not None:
            return known
        answer = self._comparable(said(output))
        missing = [each for each in case.references if self._comparable(each) not in answer]
        if self.match == "all":
            return Score.of(not missing, "", **({"missing": missing} if missing else {}))
        return Score.of(len(missing) < len(case.references))

    def _comparable(self, text: str) -> str:
        plain = " ".join(text.split())
        return plain.casefold() if self.ignore_case else plain


build = Contains.model_validate

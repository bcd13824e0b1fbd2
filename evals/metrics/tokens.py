"""Tokens: how many the prompt and the answer have, as the target counts them."""

from __future__ import annotations

from typing import ClassVar, Literal

from evals.context import Context
from evals.metric import Bounds, Parameters
from evals.scores import Score
from evals.trial import Case, Output
from infra.contracts import Usage


class Tokens(Parameters):
    bounds: ClassVar[Bounds] = (0.0, None)
    higher_is_better: ClassVar[bool] = False

    of: Literal["total", "prompt", "completion"] = "total"

    async def score(self, case: Case, output: Output, context: Context) -> Score:
        del case, context
        if output.usage == Usage():
            return Score.unscored("the target does not say how many tokens it used")
        return Score.of(getattr(output.usage, f"{self.of}_tokens"))


build = Tokens.model_validate

"""Cost: what an answer cost, in the currency of the settings, where the target knows it."""

from __future__ import annotations

from typing import ClassVar

from evals.context import Context
from evals.metric import Bounds, Parameters
from evals.scores import Score
from evals.trial import Case, Output


class Cost(Parameters):
    bounds: ClassVar[Bounds] = (0.0, None)
    higher_is_better: ClassVar[bool] = False

    async def score(self, case: Case, output: Output, context: Context) -> Score:
        del case, context
        if output.cost is None:
            return Score.unscored("the target does not say what it cost")
        return Score.of(output.cost)


build = Cost.model_validate

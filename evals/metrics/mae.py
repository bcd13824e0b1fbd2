"""MAE: how far the predicted number is from the expected one; the mean over cases is the MAE."""

from __future__ import annotations

from typing import ClassVar

from evals.context import Context
from evals.metric import Bounds, Parameters
from evals.metrics._predictions import Unusable, missing, number
from evals.scores import Score
from evals.trial import Case, Output


class Mae(Parameters):
    bounds: ClassVar[Bounds] = (0.0, None)
    higher_is_better: ClassVar[bool] = False

    async def score(self, case: Case, output: Output, context: Context) -> Score:
        del context
        known = missing(case, output)
        if known is not None:
            return known
        try:
            gap = number(output.prediction, "prediction") - number(case.expected, "reference")
            return Score.of(abs(number(gap, "error")))
        except Unusable as error:
            return Score.error(str(error))


build = Mae.model_validate

"""Brier score: how far the probabilities are from what came true, squared, from 0 to 1."""

from __future__ import annotations

from typing import ClassVar

from evals.context import Context
from evals.metric import Parameters
from evals.metrics._predictions import Unusable, missing, probabilities
from evals.scores import Score
from evals.trial import Case, Output


class Brier(Parameters):
    """Brier 1950, halved, so that with two labels it is the usual squared error of one of them."""

    higher_is_better: ClassVar[bool] = False

    async def score(self, case: Case, output: Output, context: Context) -> Score:
        del context
        known = missing(case, output)
        if known is not None:
            return known
        try:
            shares = probabilities(output.prediction)
        except Unusable as error:
            return Score.error(str(error))
        wanted = str(case.expected)
        labels = {*shares, wanted}
        squares = ((shares.get(each, 0.0) - (each == wanted)) ** 2 for each in sorted(labels))
        return Score.of(min(1.0, sum(squares) / 2))


build = Brier.model_validate

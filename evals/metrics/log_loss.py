"""Log loss: minus the logarithm of the probability that was given to the expected label."""

from __future__ import annotations

import math
from typing import ClassVar

from pydantic import Field

from evals.context import Context
from evals.metric import Bounds, Parameters
from evals.metrics._predictions import Unusable, missing, probabilities
from evals.scores import Score
from evals.trial import Case, Output


class LogLoss(Parameters):
    """In nats; its mean is scikit-learn's `log_loss`."""

    bounds: ClassVar[Bounds] = (0.0, None)
    higher_is_better: ClassVar[bool] = False

    smallest: float = Field(default=1e-15, gt=0, lt=0.5)
    """A smaller probability counts as this one, or one sure error would be infinite."""

    async def score(self, case: Case, output: Output, context: Context) -> Score:
        del context
        known = missing(case, output)
        if known is not None:
            return known
        try:
            shares = probabilities(output.prediction)
        except Unusable as error:
            return Score.error(str(error))
        given = shares.get(str(case.expected), 0.0)
        return Score.of(abs(math.log(max(given, self.smallest))))


build = LogLoss.model_validate

"""Latency: seconds from asking the target to its whole answer, of the attempt that succeeded."""

from __future__ import annotations

from typing import ClassVar

from evals.context import Context
from evals.metric import Bounds, Parameters
from evals.scores import Score
from evals.trial import Case, Output


class Latency(Parameters):
    """Measured by the runner while `concurrency` cases run side by side."""

    bounds: ClassVar[Bounds] = (0.0, None)
    higher_is_better: ClassVar[bool] = False
    is_measured: ClassVar[bool] = True

    async def score(self, case: Case, output: Output, context: Context) -> Score:
        del case, context
        if output.latency_seconds is None:
            return Score.unscored("the output was not timed")
        return Score.of(output.latency_seconds)


build = Latency.model_validate

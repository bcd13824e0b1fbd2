"""Position bias: the share of samples in which a judge in pairs says otherwise in another order."""

from __future__ import annotations

from typing import ClassVar

from evals.context import Context
from evals.metrics._pairwise import Pairwise, inconsistency
from evals.scores import Score
from evals.trial import Case, Output


class JudgePositionBias(Pairwise):
    """With the parameters of a `judge_pairwise` it asks nothing that is not remembered."""

    higher_is_better: ClassVar[bool] = False

    async def score(self, case: Case, output: Output, context: Context) -> Score:
        found = await self.compare(case, output, context)
        if not isinstance(found, Score):
            return Score.of(inconsistency(found), f"of {len(found.values)}")
        return Score.unscored(found.reason) if found.state == "scored" else found


build = JudgePositionBias.model_validate

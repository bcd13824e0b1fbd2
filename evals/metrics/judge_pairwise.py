"""Judge in pairs: 1 where a model prefers the answer in both orders, 0 the other, 0.5 neither."""

from __future__ import annotations

from evals.context import Context
from evals.judges.samples import Samples
from evals.metrics._pairwise import (
    OTHER,
    OUTCOMES,
    OUTPUT,
    TIE,
    Compared,
    Pairwise,
    inconsistency,
    outcome,
)
from evals.scores import Score
from evals.trial import Case, Output

_WORDS = {OUTPUT: "the answer is preferred", OTHER: "the other is preferred", TIE: "a tie"}


class JudgePairwise(Pairwise):
    """A mean above 0.5 is a target that is preferred; of several samples, the majority counts."""

    async def score(self, case: Case, output: Output, context: Context) -> Score:
        found = await self.compare(case, output, context)
        return found if isinstance(found, Score) else _scored(found)


def _scored(samples: Samples[Compared]) -> Score:
    chosen, turned = outcome(samples), inconsistency(samples)
    reason = _WORDS[chosen]
    if turned:
        reason += f"; the order decided in {turned:.0%} of {len(samples.values)}"
    return Score.of(
        OUTCOMES.index(chosen) / 2,
        reason,
        outcome=chosen,
        orders=[[each.answer_first, each.other_first] for each in samples.values],
        inconsistent=turned,
        reasoning=list(samples.values[0].reasonings),
    )


build = JudgePairwise.model_validate

"""Judge by a rubric: a model scores the answer on the rubric's scale, which becomes 0 to 1."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field

from evals.context import Context
from evals.judges.prompt import Exhibit
from evals.judges.rating import Rating
from evals.judges.rubric import Kind, Rubric
from evals.judges.samples import Samples, middle, take
from evals.metrics._answers import said, settled
from evals.metrics._by_rubric import ByRubric, default, opened, refusal_score
from evals.scores import Score
from evals.trial import Case, Output
from infra.errors import TooLarge


class JudgeRubric(ByRubric):
    """The lowest level of the scale is 0, the highest 1; of several samples, the median."""

    kind: ClassVar[Kind] = "score"

    rubric: Annotated[Rubric, BeforeValidator(opened)] = Field(
        default_factory=default("correctness")
    )

    async def score(self, case: Case, output: Output, context: Context) -> Score:
        compares = "reference" in self.rubric.shows
        known = settled(case, output) if compares else refusal_score(case, output)
        if known is not None:
            return known
        shown = self.background(case, output)
        if isinstance(shown, Score):
            return shown
        exhibits = [*shown, Exhibit("answer", said(output))]

        async def sample(seed: int) -> Rating:
            return await self.rate(exhibits, context, seed)

        try:
            samples = await take(self.samples, context.seed, sample)
        except TooLarge as error:
            return Score.unscored(error.message)
        return samples.lacking() or self._found(samples)

    def _found(self, samples: Samples[Rating]) -> Score:
        levels = [int(each.value) for each in samples.values]
        level = middle(levels)
        low, high = self.rubric.levels[0], self.rubric.levels[-1]
        reasoning = next(each.reasoning for each in samples.values if each.value == level)
        details: dict[str, Any] = {"level": level, "reasoning": reasoning}
        reason = f"{level} on a scale from {low} to {high}"
        if self.samples > 1:
            reason += f" ({len(levels)} samples from {min(levels)} to {max(levels)})"
            details |= {"levels": levels, "unusable": samples.count - len(levels)}
        reason += f": {reasoning}" if reasoning else ""
        return Score.of((level - low) / (high - low), reason, **details)


build = JudgeRubric.model_validate

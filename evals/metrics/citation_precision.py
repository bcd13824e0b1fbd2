"""Citation precision: the share of citations that are stored as quoted and carry their claim."""

from __future__ import annotations

from evals.context import Context
from evals.metrics._citing import Citing, holding
from evals.refusals import is_refusal, is_silent
from evals.scores import Score
from evals.support import overlap
from evals.trial import Case, Output


class CitationPrecision(Citing):
    """After Gao et al. 2023 (ALCE), with shared words and a check of spans instead of a judge."""

    async def score(self, case: Case, output: Output, context: Context) -> Score:
        del case
        if is_refusal(output) or is_silent(output):
            return Score.unscored("a refusal or empty answer cites nothing")
        if not output.citations:
            return Score.of(0.0, "the answer cites nothing")
        standing = await holding(output, context)
        good = [
            each
            for each in standing
            if overlap(output.text[each.answer_start : each.answer_end], [each.text])
            >= self.min_overlap
        ]
        wrong = len(output.citations) - len(standing)
        return Score.of(
            len(good) / len(output.citations),
            f"{wrong} not stored as quoted, {len(standing) - len(good)} beside the claim",
        )


build = CitationPrecision.model_validate

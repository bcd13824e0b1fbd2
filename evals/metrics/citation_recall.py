"""Citation recall: the share of the answer's sentences that its citations carry."""

from __future__ import annotations

from evals.context import Context
from evals.metrics._answers import said
from evals.metrics._citing import Citing, holding
from evals.refusals import is_refusal, is_silent
from evals.scores import Score
from evals.support import overlap
from evals.trial import Case, Output
from infra.sentences import sentence_spans


class CitationRecall(Citing):
    """After Gao et al. 2023 (ALCE), with shared words and a check of spans instead of a judge."""

    async def score(self, case: Case, output: Output, context: Context) -> Score:
        del case
        if is_refusal(output) or is_silent(output):
            return Score.unscored("a refusal or empty answer has no sentence to carry")
        standing = await holding(output, context)
        bare: list[str] = []
        count = 0
        for start, end in sentence_spans(output.text):
            sentence = said(Output(output.text[start:end])).strip()
            if not sentence:
                continue
            count += 1
            evidence = [
                each.text
                for each in standing
                if each.answer_start < end and start < each.answer_end
            ]
            if not evidence or overlap(sentence, evidence) < self.min_overlap:
                bare.append(sentence)
        if not count:
            return Score.unscored("the answer has no sentence")
        return Score.of(1 - len(bare) / count, "", **({"not carried": bare} if bare else {}))


build = CitationRecall.model_validate

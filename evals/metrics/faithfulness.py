"""Faithfulness: the share of the answer's sentences that the passages carry, without a judge."""

from __future__ import annotations

from typing import ClassVar

from anyio import to_thread
from pydantic import Field

from evals.context import Context
from evals.metric import Parameters
from evals.metrics._answers import said
from evals.refusals import is_refusal, is_silent
from evals.scores import Score
from evals.support import supported
from evals.trial import Case, Output
from infra.sentences import sentence_spans
from infra.words import whole


class Faithfulness(Parameters):
    """It runs on a CPU and compares versions; what it finds is worth reading, not the last word."""

    version: ClassVar[int] = 2

    min_support: float = Field(default=0.5, gt=0, le=1)
    """The least support of a sentence that counts as carried."""
    embed: bool = False
    """Whether meaning is looked at too; `benchmarks groundedness` found words alone as good."""

    @property
    def embeds(self) -> bool:
        return self.embed

    async def score(self, case: Case, output: Output, context: Context) -> Score:
        del case
        if is_refusal(output) or is_silent(output):
            return Score.unscored("a refusal or empty answer has no sentence to carry")
        if not output.passages:
            return Score.unscored("nothing was found that could carry the answer")
        text = whole(said(output))
        claims = [text[start:end] for start, end in sentence_spans(text)]
        if not any(each.isalnum() for each in text):
            return Score.unscored("the answer has no word")
        embed = context.embed if self.embed else None
        texts = [whole(passage.text) for passage in output.passages]
        found = await to_thread.run_sync(supported, claims, texts, embed)
        bare = [each.claim for each in found if each.support < self.min_support]
        details = {"not carried": bare} if bare else {}
        return Score.of(1 - len(bare) / len(found), "", **details)


build = Faithfulness.model_validate

"""Context relevance: the share of the passages' sentences that are near the question in meaning."""

from __future__ import annotations

from anyio import to_thread
from pydantic import Field

from evals.context import Context
from evals.metric import Parameters
from evals.scores import Score
from evals.trial import Case, Output
from infra.sentences import sentence_spans
from infra.words import whole


class ContextRelevance(Parameters):
    """By the embedder, without a judge: what is about the question counts, answering it or not."""

    min_similarity: float = Field(default=0.3, ge=-1, le=1)
    """The least cosine of a sentence that counts; embedders differ in what is near."""

    @property
    def embeds(self) -> bool:
        return True

    async def score(self, case: Case, output: Output, context: Context) -> Score:
        if not case.question.strip():
            return Score.unscored("the case has no question")
        texts = [whole(passage.text) for passage in output.passages]
        # Passages overlap: what two of them hold counts once.
        sentences = list(
            dict.fromkeys(text[start:end] for text in texts for start, end in sentence_spans(text))
        )
        if not sentences:
            return Score.unscored("no passage was found")
        if context.embed is None:
            return Score.error("there is no embedder here")
        vectors = await to_thread.run_sync(context.embed, [whole(case.question), *sentences])
        near = int((vectors[1:] @ vectors[0] >= self.min_similarity).sum())
        return Score.of(near / len(sentences), f"{near} of {len(sentences)} sentences")


build = ContextRelevance.model_validate

"""Semantic similarity: the cosine of the answer with the nearest reference, by the embedder."""

from __future__ import annotations

from typing import ClassVar

from anyio import to_thread

from evals.context import Context
from evals.metric import Bounds, Parameters
from evals.metrics._answers import said, settled
from evals.scores import Score
from evals.trial import Case, Output
from infra.words import whole


class SemanticSimilarity(Parameters):
    """It is high for what is about the same, also where a number or a "not" differs."""

    version: ClassVar[int] = 2
    bounds: ClassVar[Bounds] = (-1.0, 1.0)

    @property
    def embeds(self) -> bool:
        return True

    async def score(self, case: Case, output: Output, context: Context) -> Score:
        known = settled(case, output)
        if known is not None:
            return known
        if context.embed is None:
            return Score.error("there is no embedder here")
        texts = [whole(text) for text in (said(output), *case.references)]
        vectors = await to_thread.run_sync(context.embed, texts)
        cosine = float((vectors[1:] @ vectors[0]).max())
        return Score.of(min(1.0, max(-1.0, cosine)))


build = SemanticSimilarity.model_validate

"""ragas answer correctness: F1 of the answer's statements beside the reference's, and likeness."""

from __future__ import annotations

from types import ModuleType
from typing import Any, ClassVar

from pydantic import Field

from evals.context import Context
from evals.metrics._answers import settled
from evals.metrics._ragas import Ragas
from evals.scores import Score
from evals.trial import Case, Output


class RagasAnswerCorrectness(Ragas):
    """A judge sorts statements into true, false and missing; a right refusal scores 1."""

    needs: ClassVar[tuple[str, ...]] = ("user_input", "response", "reference")

    similarity: float = Field(default=0.25, ge=0, le=1)
    """The weight of the cosine with the reference."""

    @property
    def embeds(self) -> bool:
        return self.similarity > 0

    async def score(self, case: Case, output: Output, context: Context) -> Score:
        known = settled(case, output)
        return known if known is not None else await super().score(case, output, context)

    def open(self, library: ModuleType, judge: Any, embedder: Any) -> Any:
        weights = [1 - self.similarity, self.similarity]
        return library.AnswerCorrectness(
            llm=judge, embeddings=embedder if self.similarity else None, weights=weights
        )


build = RagasAnswerCorrectness.model_validate

"""ragas answer relevancy: how near the questions that the answer would fit are to the question."""

from __future__ import annotations

from types import ModuleType
from typing import Any, ClassVar

from pydantic import Field

from evals.metric import Bounds
from evals.metrics._ragas import Ragas


class RagasAnswerRelevancy(Ragas):
    """A judge makes up questions from the answer, and says whether it is evasive."""

    needs: ClassVar[tuple[str, ...]] = ("user_input", "response")
    bounds: ClassVar[Bounds] = (-1.0, 1.0)

    strictness: int = Field(default=3, ge=1, le=10)
    """Questions that are made up."""

    @property
    def embeds(self) -> bool:
        return True

    def open(self, library: ModuleType, judge: Any, embedder: Any) -> Any:
        return library.AnswerRelevancy(llm=judge, embeddings=embedder, strictness=self.strictness)


build = RagasAnswerRelevancy.model_validate

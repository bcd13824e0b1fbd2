"""ragas faithfulness: the share of the answer's statements that the passages bear out."""

from __future__ import annotations

from types import ModuleType
from typing import Any, ClassVar

from evals.metrics._ragas import Ragas


class RagasFaithfulness(Ragas):
    """A judge takes the answer apart and holds each statement against all passages."""

    needs: ClassVar[tuple[str, ...]] = ("user_input", "response", "retrieved_contexts")

    def open(self, library: ModuleType, judge: Any, embedder: Any) -> Any:
        del embedder
        return library.Faithfulness(llm=judge)


build = RagasFaithfulness.model_validate

"""ragas context recall: the share of the reference's statements that the passages bear out."""

from __future__ import annotations

from types import ModuleType
from typing import Any, ClassVar

from evals.metrics._ragas import Ragas


class RagasContextRecall(Ragas):
    """A judge takes the reference apart and looks for each statement in the passages."""

    needs: ClassVar[tuple[str, ...]] = ("user_input", "reference", "retrieved_contexts")

    def open(self, library: ModuleType, judge: Any, embedder: Any) -> Any:
        del embedder
        return library.ContextRecall(llm=judge)


build = RagasContextRecall.model_validate

"""ragas context precision: whether the passages that help stand before those that do not."""

from __future__ import annotations

from types import ModuleType
from typing import Any, ClassVar

from evals.metrics._ragas import Ragas


class RagasContextPrecision(Ragas):
    """A judge says of each passage whether it helped to arrive at the reference."""

    needs: ClassVar[tuple[str, ...]] = ("user_input", "reference", "retrieved_contexts")

    def open(self, library: ModuleType, judge: Any, embedder: Any) -> Any:
        del embedder
        return library.ContextPrecisionWithReference(llm=judge)


build = RagasContextPrecision.model_validate

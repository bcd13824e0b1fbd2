"""ragas noise sensitivity: the share of statements that are wrong and that a passage led to."""

from __future__ import annotations

from types import ModuleType
from typing import Any, ClassVar, Literal

from evals.metrics._ragas import Ragas


class RagasNoiseSensitivity(Ragas):
    """A judge holds each statement against the reference and each passage."""

    needs: ClassVar[tuple[str, ...]] = ("user_input", "response", "reference", "retrieved_contexts")
    higher_is_better: ClassVar[bool] = False

    mode: Literal["relevant", "irrelevant"] = "relevant"
    """Which passages led to what is wrong."""

    def open(self, library: ModuleType, judge: Any, embedder: Any) -> Any:
        del embedder
        return library.NoiseSensitivity(llm=judge, mode=self.mode)


build = RagasNoiseSensitivity.model_validate

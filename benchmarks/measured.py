"""An embedder that counts the seconds spent in another one and keeps the texts it was given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.job import Stopwatch
from infra.contracts import Embedder, Vectors
from retrieval.embedders import open_embedder

PLUGIN = f"{__name__}.build"
"""As `retrieval.embedder` in the settings: the product takes it like any third party's."""


class MeasuredEmbedder:
    """Behaves as the embedder it wraps."""

    def __init__(self, inner: Embedder) -> None:
        self.embedding = Stopwatch()
        self.texts: list[str] = []
        """Every text embedded as a document, in order."""
        self._inner = inner
        self._embed = self.embedding.timed(inner.embed)

    @property
    def identity(self) -> str:
        return self._inner.identity

    @property
    def dimension(self) -> int:
        return self._inner.dimension

    @property
    def max_tokens(self) -> int:
        return self._inner.max_tokens

    def embed(self, texts: Sequence[str], *, kind: Literal["query", "document"]) -> Vectors:
        if kind == "document":
            self.texts += texts
        return self._embed(texts, kind=kind)

    def token_spans(self, text: str) -> NDArray[np.int32]:
        return self._inner.token_spans(text)

    def reset(self) -> None:
        """Forget what was counted."""
        self.embedding.seconds = 0.0
        self.texts = []


def build(*, inner: str, **options: Any) -> MeasuredEmbedder:
    """Wrap the embedder of plug-in `inner`."""
    return MeasuredEmbedder(open_embedder(inner, **options))

"""Late interaction: every token of the question looks for the token of a passage most like it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from infra.errors import InvalidConfiguration
from retrieval.embedders._onnx_export import Precision
from retrieval.embedders.onnx import OnnxEmbedder
from retrieval.embedders.onnx import build as open_embedder

WEIGHT = 0.6
"""Chosen on training questions; `docs/decisions.md` has the figures."""


class LateInteraction:
    """Uses the token vectors of an embedder, from which it otherwise makes one for a whole text.

    The sum of maxima is that of ColBERT (Khattab and Zaharia, 2020, https://arxiv.org/abs/2004.12832),
    here over the tokens of a model that was trained for vectors of whole texts.
    """

    def __init__(self, embedder: OnnxEmbedder, *, weight: float) -> None:
        self._embedder = embedder
        self.weight = weight

    def score(self, question: str, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return, over the question's tokens, the mean cosine to the nearest token of each text."""
        scores = np.zeros(len(texts), dtype=np.float32)
        if not texts:
            return scores
        asked = self._embedder.tokens(question, kind="query")

        def fill(position: int) -> None:
            said = self._embedder.tokens(texts[position], kind="document")
            if len(asked) and len(said):
                scores[position] = (asked @ said.T).max(axis=1).mean()

        self._embedder.side_by_side(fill, texts)
        return scores.clip(0, 1)


def build(
    *,
    model: str | None = None,
    weight: float = WEIGHT,
    precision: Precision = "int8",
    threads: int | None = None,
    cache: str | None = None,
) -> LateInteraction:
    """Open a model.

    Args:
        model: a folder or a hub id (`name` or `name@revision`); the packaged model if absent.
        weight: how much of the order is its own, 0 to 1; the rest stays with the fusion.
        precision: `int8` or `float32`.
        threads: passages read side by side; the cores this process may use if absent.
        cache: the folder for graphs that were written; the user's cache folder if absent.

    Raises:
        InvalidConfiguration: there is no such model, it tells no vectors of tokens, or an option
            is wrong.
        MissingDependency: the packages for it are not installed.
    """
    if not 0 <= weight <= 1:
        raise InvalidConfiguration(f"The reranker's weight {weight!r} is not between 0 and 1")
    embedder = open_embedder(model=model, precision=precision, threads=threads, cache=cache)
    embedder.require_tokens()
    return LateInteraction(embedder, weight=weight)

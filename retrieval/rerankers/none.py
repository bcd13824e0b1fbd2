"""No reranking: passages stay in the order that fusion gave them."""

from __future__ import annotations

from collections.abc import Sequence


class NoReranker:
    """Has no opinion."""

    def score(self, question: str, texts: Sequence[str]) -> None:
        """Return None."""


def build() -> NoReranker:
    """Return the reranker that leaves everything as it is."""
    return NoReranker()

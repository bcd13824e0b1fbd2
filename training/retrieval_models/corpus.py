"""The passages of a collection, as training asks for them; who holds them is the service's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Piece:
    """A passage, with the text that is embedded of it: its own, below its heading."""

    key: int
    document: str
    """The public id."""
    source: str
    text: str
    score: float = 0.0
    """Its likeness to the question that found it, by the present model."""


class Corpus(Protocol):
    """What of a collection its readers may read, found by the build that answers."""

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str:
        """Of its documents and of what its build was made with."""
        ...

    @property
    def model(self) -> str | None:
        """Of the embedder that it is built with; None where that is no model."""
        ...

    @property
    def chunk_tokens(self) -> int: ...

    def holding(self, words: str, document: str | None) -> Sequence[Piece]:
        """Return passages that hold these words, or lie within them, of a document or of any."""
        ...

    def named(self, document: str) -> frozenset[str]:
        """Return the public ids of what is named as `best_of` takes it, none if there is none."""
        ...

    def best_of(self, document: str, question: str) -> Piece | None:
        """Return the passage of a document that is most like a question; None if there is none.

        A document is named by its id, its source, or the end of the source's path.
        """
        ...

    def near(self, question: str, limit: int) -> Sequence[Piece]:
        """Return the passages most like a question, best first."""
        ...

    def likeness(self, question: str, keys: Sequence[int]) -> Sequence[float]:
        """Return how like a question some passages are, by the present model."""
        ...

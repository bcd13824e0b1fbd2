"""Passages read once for all the sentences that are held against them, in pieces to their end."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from infra.sentences import sentence_spans
from monitoring.grounding.terms import content_terms

PIECE_CHARACTERS = 1_600
"""A longer text is looked at in pieces of whole sentences, each about as long as a chunk."""
LONGEST_SENTENCE = 1_200
"""What has no end for longer (a table, a script without stops) is cut here, mid-word if need be."""
MOST_CHARACTERS = 1_000_000
"""Of all texts together; what lies beyond is not looked at, and `coverage` says so."""


@dataclass(frozen=True, slots=True)
class Source:
    """A text that may carry a claim."""

    text: str
    above: str = ""
    """Title and headings: known to whoever reads it."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Some sentences in a row of one text."""

    source: int
    """Position among the texts."""
    first: int
    """Position of its first sentence among all."""
    last: int
    """One past its last."""
    terms: frozenset[str]
    """Of its sentences, and of what stands above them."""


class Evidence:
    """Sentences of all texts with their terms, and in which of them each term is."""

    def __init__(
        self, sources: Sequence[Source], *, most_characters: int = MOST_CHARACTERS
    ) -> None:
        self.sources = tuple(sources)
        self.spans: list[tuple[int, int, int]] = []
        """Of each sentence: its text, start and end there."""
        self.terms: list[list[str]] = []
        self.pieces: list[Piece] = []
        total = sum(len(each.text) for each in sources)
        room = most_characters
        for number, source in enumerate(sources):
            self._read(number, source, room)
            room = max(0, room - len(source.text))
        self.coverage = 1.0 if total <= most_characters else most_characters / total
        """The share of all characters that was read."""

    def _read(self, number: int, source: Source, room: int) -> None:
        above = frozenset(content_terms(source.above))
        first, size = len(self.spans), 0
        held: set[str] = set()
        for start, end in _sentences(source.text[:room]):
            if size and size + end - start > PIECE_CHARACTERS:
                self._close(number, first, above | held)
                first, size, held = len(self.spans), 0, set()
            terms = content_terms(source.text[start:end])
            self.spans.append((number, start, end))
            self.terms.append(terms)
            held.update(terms)
            size += end - start
        if size:
            self._close(number, first, above | held)

    def _close(self, source: int, first: int, terms: frozenset[str] | set[str]) -> None:
        self.pieces.append(Piece(source, first, len(self.spans), frozenset(terms)))

    @cached_property
    def everything(self) -> frozenset[str]:
        """The terms of all texts."""
        return frozenset().union(*(piece.terms for piece in self.pieces))

    @cached_property
    def places(self) -> dict[str, list[int]]:
        """By term, the sentences that hold it."""
        found: dict[str, list[int]] = defaultdict(list)
        for number, terms in enumerate(self.terms):
            for term in set(terms):
                found[term].append(number)
        return dict(found)

    @cached_property
    def joins(self) -> NDArray[np.bool_]:
        """Whether each sentence and the next are of one text."""
        texts = np.array([text for text, _, _ in self.spans], dtype=np.int64)
        joins: NDArray[np.bool_] = texts[:-1] == texts[1:]
        return joins

    def text(self, first: int, last: int) -> str:
        """Return the sentences from `first` to `last`, which are of one text, as they stand."""
        number, start, _ = self.spans[first]
        return self.sources[number].text[start : self.spans[last][2]]


def _sentences(text: str) -> Iterator[tuple[int, int]]:
    for start, end in sentence_spans(text):
        while end - start > LONGEST_SENTENCE:
            space = text.rfind(" ", start + LONGEST_SENTENCE // 2, start + LONGEST_SENTENCE)
            cut = space + 1 if space > 0 else start + LONGEST_SENTENCE
            yield start, cut
            start = cut
        yield start, end

"""Turns what a model writes into text and quotes while it comes; judges it at the end."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from infra.contracts import Passage
from infra.sentences import sentence_spans
from service import words
from service.citations import align, claim_before
from service.engines import Delta, Quote
from service.generation.bracketed import unmarked
from service.generation.markers import Marker, Markers, Refusal

MIN_SUPPORT = 0.5
"""A sentence whose best source carries less of it counts as unsupported."""
FEW_TERMS = 3
"""A sentence with fewer words of its own, such as "Yes." or "In short:", claims nothing."""

_BETWEEN_MARKERS = re.compile(r"[\s,;]*\Z")
_LEADING_MARKERS = re.compile(r"(?:\s*\[\d{1,3}\])+[.,;]?")
_DECLINES = re.compile(
    r"\b(?:sources?|documents?|passages?|context|texts?|information)\b[^.]{0,40}"
    r"\b(?:do(?:es)?\ not|don[’']t|doesn[’']t|did\ not|cannot)\ (?:\w+\ ){0,2}?"
    r"(?:say|contain|mention|provide|state|specify|include|answer|hold|give|tell)"
    r"|\bI\ (?:do\ not|don[’']t)\ know\b|\bI\ (?:cannot|can[’']t)\ (?:find|answer)\b"
    r"|\b(?:no|not\ enough)\ information\b",
    re.IGNORECASE | re.VERBOSE,
)


class Writer:
    """Reads one answer; sources are numbered from 1, as `shown` says by their positions."""

    def __init__(self, passages: Sequence[Passage], shown: Sequence[int], refusal: str) -> None:
        self._passages = passages
        self._shown = shown
        self._markers = Markers(refusal)
        self.text = ""
        self.quotes: list[Quote] = []
        self.unknown = 0
        self.has_refused = False
        self._told = 0
        """The end of the last marker."""
        self._claim = (0, 0)

    def feed(self, text: str) -> list[Delta]:
        """Take what the model wrote next."""
        return self._take(self._markers.feed(text))

    def end(self) -> list[Delta]:
        """Return what was held back: nothing more comes."""
        return self._take(self._markers.end())

    @property
    def declines(self) -> bool:
        """Whether the model says, in its own words or by the one it was given, that it cannot."""
        return self.has_refused or not self.quotes and bool(_DECLINES.search(self.text))

    def _take(self, items: Sequence[str | Marker | Refusal]) -> list[Delta]:
        deltas = []
        for item in items:
            if isinstance(item, Refusal):
                self.has_refused = True
            elif isinstance(item, Marker):
                deltas.append(self._cite(item))
            elif text := unmarked(self.text, item) if self.text else item.lstrip():
                self.text += text
                deltas.append(Delta(text))
        return [delta for delta in deltas if delta.text]

    def _cite(self, marker: Marker) -> Delta:
        """Write a marker with those of its numbers whose sources hold something of the claim.

        What a reader would take for a citation and nothing stands behind is not told.
        """
        claim = self._claim_here()
        found = {number: self._quote(claim, number) for number in marker.numbers}
        quotes = {number: quote for number, quote in found.items() if quote is not None}
        self.unknown += len(found) - len(quotes)
        if not quotes:
            return Delta()
        text = marker.lead + "".join(f"[{number}]" for number in quotes)
        self.text += text
        self._told = len(self.text)
        self._claim = claim
        self.quotes += quotes.values()
        return Delta(text, quotes=tuple(quotes.values()))

    def _claim_here(self) -> tuple[int, int]:
        """The claim that the next marker is for: markers in a row share theirs."""
        if self._told and _BETWEEN_MARKERS.match(self.text, self._told):
            return self._claim
        return claim_before(self.text, self._told, len(self.text))

    def _quote(self, claim: tuple[int, int], number: int) -> Quote | None:
        start, end = claim
        if start >= end or not 1 <= number <= len(self._shown):
            return None
        position = self._shown[number - 1]
        found = align(self.text[start:end], self._passages[position].text)
        if found is None:
            return None
        return Quote(
            position,
            found.start,
            found.end,
            answer_start=start,
            answer_end=end,
            support=found.support,
        )


class Sieve:
    """Lets sentences through once they are whole, and only those that a source carries."""

    def __init__(self) -> None:
        self._text = ""
        self._quotes: list[Quote] = []
        self._taken = 0
        """Characters of the answer that were passed on or removed, as the writer counts them."""
        self._told = 0
        self.removed = 0

    def feed(self, delta: Delta) -> list[Delta]:
        self._text += delta.text
        self._quotes += delta.quotes
        passed = []
        while (end := _whole_sentence(self._text)) is not None:
            passed += self._judge(end)
        return passed

    def end(self) -> list[Delta]:
        """Judge the last sentence."""
        return self._judge(len(self._text)) if self._text else []

    def _judge(self, end: int) -> list[Delta]:
        text, self._text = self._text[:end], self._text[end:]
        until = self._taken + end
        quotes = [quote for quote in self._quotes if quote.answer_start < until]
        self._quotes = self._quotes[len(quotes) :]
        moved = self._told - self._taken
        self._taken = until
        if unsupported(text, quotes, at=until - end):
            self.removed += 1
            return []
        self._told += end
        shifted = tuple(
            replace(
                quote,
                answer_start=quote.answer_start + moved,
                answer_end=quote.answer_end + moved,
            )
            for quote in quotes
        )
        return [Delta(text, quotes=shifted)]


def unsupported(text: str, quotes: Sequence[Quote], *, at: int = 0) -> tuple[tuple[int, int], ...]:
    """Return the sentences that claim something and that no quote carries.

    Args:
        text: of the answer, or a part of it.
        quotes: with spans within the whole answer.
        at: where in the answer the text begins.
    """
    found = []
    for start, end in sentence_spans(text):
        skipped = _LEADING_MARKERS.match(text, start)
        start = skipped.end() if skipped else start
        start += len(text[start:end]) - len(text[start:end].lstrip())
        if start >= end or len(set(words.content_terms(text[start:end]))) < FEW_TERMS:
            continue
        if text[end - 1] in ":：":
            continue
        best = max(
            (
                quote.support
                for quote in quotes
                if quote.answer_start < at + end and quote.answer_end > at + start
            ),
            default=0.0,
        )
        if best < MIN_SUPPORT:
            found.append((at + start, at + end))
    return tuple(found)


def _whole_sentence(text: str) -> int | None:
    """The end of the first sentence with the markers behind it, once another has begun."""
    spans = sentence_spans(text)
    if len(spans) < 2:
        return None
    second = spans[1][0]
    behind = _LEADING_MARKERS.match(text, second)
    if behind is None:
        return None if text[second] in "[【" else second
    rest = text[behind.end() :]
    if not rest.strip():
        return None
    return behind.end() + len(rest) - len(rest.lstrip())

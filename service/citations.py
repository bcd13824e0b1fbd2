"""Citations: what an engine says it quoted, checked against the stored text, or dropped."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from infra.contracts import Citation, Passage
from infra.sentences import sentence_spans
from service import words
from service.engines import Quote

ReadText: TypeAlias = Callable[[str, int, int, int], str | None]
"""`(document_id, version, start, end)` to the stored text there, or None when it is gone."""

_MARKER = r"(?:\[\d{1,3}(?:, ?\d{1,3}){0,9}\]|【\d{1,3}】)"
_MARKERS = re.compile(rf"{_MARKER}(?:\s?{_MARKER})*")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_NUMBER_MISSING = 0.6
_NEGATION_DIFFERS = 0.8
_WIDER_COSTS = 0.05
"""Two sentences must hold this much more than one: a citation points as closely as it can."""


@dataclass(frozen=True, slots=True)
class Checked:
    """Citations that equal the stored text, and how many did not."""

    citations: tuple[Citation, ...]
    unverified: int


@dataclass(frozen=True, slots=True)
class Marked:
    """Quotes read from the markers of an answer, and how many markers point at nothing."""

    quotes: tuple[Quote, ...]
    unknown: int


@dataclass(frozen=True, slots=True)
class Aligned:
    """A stretch of a passage, and how much of a claim it carries, 0 to 1."""

    start: int
    end: int
    support: float


def check(quotes: Sequence[Quote], passages: Sequence[Passage], *, read_text: ReadText) -> Checked:
    """Turn quotes into citations; one whose text is not what is stored at its span is dropped."""
    citations = [_check_one(quote, passages, read_text) for quote in quotes]
    kept = tuple(citation for citation in citations if citation is not None)
    return Checked(kept, unverified=len(citations) - len(kept))


def read_markers(text: str, passages: Sequence[Passage]) -> Marked:
    """Read markers such as `[2]`, `[1][3]` or `[1, 3]`, which number the passages from 1.

    The claim is the part of the sentence before the markers; the evidence is what `align` finds in
    the passage. Its support ranks, uncalibrated.
    """
    starts = [start for start, _ in sentence_spans(text)]
    quotes: list[Quote] = []
    unknown = 0
    told = 0
    for match in _MARKERS.finditer(text):
        claim = _claim(text, told, match.start(), starts)
        for number in re.findall(r"\d+", match.group()):
            quote = _evidence(text, claim, passages, position=int(number) - 1)
            if quote is None:
                unknown += 1
            else:
                quotes.append(quote)
        told = match.end()
    return Marked(tuple(quotes), unknown)


def align(claim: str, text: str) -> Aligned | None:
    """Return the sentence, or two neighbours, that hold most of a claim's words.

    Support is that share; it falls where the claim has a number that the stretch lacks, or where
    one of them denies and the other does not.
    """
    claimed = frozenset(words.content_terms(claim))
    spans = sentence_spans(text)
    terms = [frozenset(words.content_terms(text[start:end])) for start, end in spans]
    best: Aligned | None = None
    for first, last in _stretches(len(spans)):
        held = claimed & terms[first].union(terms[last])
        if not held:
            continue
        start, end = spans[first][0], spans[last][1]
        share = len(held) / len(claimed) * _agreement(claim, text[start:end])
        if best is None or share > best.support + (_WIDER_COSTS if last > first else 0.0):
            best = Aligned(start, end, share)
    return best


def claim_before(text: str, told: int, marker: int) -> tuple[int, int]:
    """Return the span of what is claimed before a marker.

    It is the sentence that ends there, from the last marker on, which ended at `told`.
    """
    starts = [told + start for start, _ in sentence_spans(text[told:marker])]
    return _claim(text, told, marker, starts)


def _stretches(sentences: int) -> Iterator[tuple[int, int]]:
    yield from ((at, at) for at in range(sentences))
    yield from ((at, at + 1) for at in range(sentences - 1))


def _agreement(claim: str, text: str) -> float:
    factor = 1.0
    if set(_NUMBER.findall(claim)) - set(_NUMBER.findall(text)):
        factor *= _NUMBER_MISSING
    if words.is_negated(claim) != words.is_negated(text):
        factor *= _NEGATION_DIFFERS
    return factor


def _check_one(quote: Quote, passages: Sequence[Passage], read_text: ReadText) -> Citation | None:
    if not 0 <= quote.passage < len(passages):
        return None
    passage = passages[quote.passage]
    if not 0 <= quote.start < quote.end <= len(passage.text):
        return None
    text = passage.text[quote.start : quote.end]
    start, end = passage.start_char + quote.start, passage.start_char + quote.end
    if read_text(passage.document_id, passage.document_version, start, end) != text:
        return None
    return Citation(
        document_id=passage.document_id,
        document_version=passage.document_version,
        source=passage.source,
        title=passage.title,
        start_char=start,
        end_char=end,
        text=text,
        answer_start=quote.answer_start,
        answer_end=quote.answer_end,
        support=min(1.0, max(0.0, quote.support)),
        page=passage.page,
    )


def _claim(text: str, told: int, marker: int, starts: Sequence[int]) -> tuple[int, int]:
    """The span of what is claimed before a marker: its sentence, from the last marker on."""
    end = told + len(text[told:marker].rstrip())
    start = max([told, *(at for at in starts if at < end)])
    claim = text[start:end]
    return start + len(claim) - len(claim.lstrip(" \t\r\n.,;:!?")), end


def _evidence(
    text: str, claim: tuple[int, int], passages: Sequence[Passage], *, position: int
) -> Quote | None:
    """The stretch of the passage that carries the claim best; None if none holds a word of it."""
    start, end = claim
    if start >= end or not 0 <= position < len(passages):
        return None
    found = align(text[start:end], passages[position].text)
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

"""Citations: what an engine says it quoted, checked against the stored text, or dropped."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
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


def check(quotes: Sequence[Quote], passages: Sequence[Passage], *, read_text: ReadText) -> Checked:
    """Turn quotes into citations; one whose text is not what is stored at its span is dropped."""
    citations = [_check_one(quote, passages, read_text) for quote in quotes]
    kept = tuple(citation for citation in citations if citation is not None)
    return Checked(kept, unverified=len(citations) - len(kept))


def read_markers(text: str, passages: Sequence[Passage]) -> Marked:
    """Read markers such as `[2]`, `[1][3]` or `[1, 3]`, which number the passages from 1.

    The claim is the part of the sentence before the markers; the evidence is the sentence of the
    passage that holds most of the claim's words. Support is that share: it ranks, uncalibrated.
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
    """The passage's sentence that holds most of the claim's terms; None if none holds any."""
    start, end = claim
    if start >= end or not 0 <= position < len(passages):
        return None
    claimed = frozenset(words.content_terms(text[start:end]))
    passage = passages[position].text
    best: tuple[float, int, int] | None = None
    for first, last in sentence_spans(passage):
        held = claimed.intersection(words.content_terms(passage[first:last]))
        share = len(held) / max(1, len(claimed))
        if share > (best[0] if best else 0.0):
            best = (share, first, last)
    if best is None:
        return None
    share, first, last = best
    return Quote(position, first, last, answer_start=start, answer_end=end, support=share)

"""What an answer claims: its sentences without the marks of citations, and where they stand."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from infra.contracts import Citation
from infra.sentences import sentence_spans
from monitoring.grounding.terms import content_terms

MOST_CLAIMS = 200
"""Of one answer; what follows is not looked at, and `coverage` says so."""
# A run of white space is tried from its beginning only: from every place of it, a long one would
# take the square of its length.
_MARKERS = re.compile(r"(?:(?<!\s)\s++)?(?:\[\d{1,3}(?:, ?\d{1,3})*\]|【[^】]{1,40}】)")
_EMPTY = frozenset({"yes", "no", "ja", "nein", "oui", "non", "sí", "si"})
_ASKS = ("?", "？", "؟")


@dataclass(frozen=True, slots=True)
class Stated:
    """A sentence of an answer that can be carried or not."""

    start: int
    end: int
    text: str
    citations: tuple[Citation, ...]
    """Those whose stretch of the answer it shares."""


def claims(answer: str, citations: Sequence[Citation] = ()) -> list[Stated]:
    """Return what an answer claims; questions, and sentences without a word, claim nothing."""
    found = []
    for start, end in sentence_spans(answer):
        text = bare_of_marks(answer[start:end]).strip()
        bare = text.strip(" *_#>-•\"'”’»)")
        if bare.endswith((*_ASKS, ":", "：")) or set(content_terms(bare)) <= _EMPTY:
            continue
        cited = tuple(
            each for each in citations if each.answer_start < end and each.answer_end > start
        )
        found.append(Stated(start, end, text, cited))
    return found


def bare_of_marks(text: str) -> str:
    """Return a text without the marks of citations and the white space before each."""
    return _MARKERS.sub("", text)

"""The sentences of the passages that may answer a question, and what they are judged on."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from infra.contracts import Passage
from infra.sentences import sentence_spans
from service import words
from service.words import Question

BORROWED_WEIGHT = 0.3
_CLOSING = ".!;。！；।؛\"'”’»)]`*"
_LIST_ITEM = re.compile(r"(?:[-*•‣]|\(?\w{1,3}[.)])\s")


@dataclass(frozen=True, slots=True)
class Sentence:
    """A stretch of a passage that may stand in an answer by itself."""

    passage: int
    """Position in the prompt's passages."""
    start: int
    """Within the passage's text."""
    end: int
    text: str
    lead: str
    """The heading or question right above, that it answers; else empty."""
    terms: frozenset[str]
    """Of the text and its lead."""
    near: frozenset[str]
    """The terms of the sentences before and after, of the title and of the headings."""

    @property
    def read_as(self) -> str:
        """What it says to one who reads from above."""
        return f"{self.lead}\n{self.text}" if self.lead else self.text


@dataclass(frozen=True, slots=True)
class Evidence:
    """A question with everything in its passages that bears on it."""

    question: Question
    passages: tuple[Passage, ...]
    sentences: tuple[Sentence, ...]
    around: tuple[frozenset[str], ...]
    """By passage: the terms of its text, title and headings."""
    rarity: Mapping[str, float]
    """By question term: inverse document frequency among the sentences; less if borrowed."""

    def coverage(self, found: frozenset[str], among: Iterable[str] | None = None) -> float:
        """The share of the question's terms that `found` holds, weighted by rarity; 1 for none."""
        asked = self.question.terms if among is None else tuple(among)
        total = sum(self.rarity[term] for term in asked)
        held = sum(self.rarity[term] for term in asked if term in found)
        return held / total if total else 1.0


def gather(question: Question, passages: Sequence[Passage], *, max_characters: int) -> Evidence:
    """Split passages into sentences, best passage first, until `max_characters` are read.

    A sentence that overlapping passages share is taken from the better one. Headings and questions
    answer nothing themselves: they are read with the sentence below them.
    """
    sentences: list[Sentence] = []
    around: list[frozenset[str]] = []
    seen: set[tuple[str, int, int]] = set()
    room = max_characters
    for position, passage in enumerate(passages):
        above = frozenset(words.terms(f"{passage.title} {passage.heading}"))
        found = _read(position, passage, above, room)
        around.append(above.union(*(sentence.near for sentence in found)))
        for sentence in found:
            place = (
                passage.document_id,
                passage.start_char + sentence.start,
                passage.start_char + sentence.end,
            )
            if place not in seen:
                seen.add(place)
                sentences.append(sentence)
        room = max(0, room - len(passage.text))
    return Evidence(
        question, tuple(passages), tuple(sentences), tuple(around), _rarity(question, sentences)
    )


def _read(
    position: int, passage: Passage, above: frozenset[str], max_characters: int
) -> list[Sentence]:
    """The sentences of one passage that may answer something."""
    spans = _whole_spans(passage.text[:max_characters])
    found = [words.content_terms(passage.text[start:end]) for start, end in spans]
    sentences: list[Sentence] = []
    lead, of_lead = "", frozenset[str]()
    for number, (start, end) in enumerate(spans):
        text, own = passage.text[start:end], frozenset(found[number])
        if _answers_nothing(text, passage):
            lead, of_lead = text, own
        elif own and not _is_scrap(text, own):
            near = above.union(*found[max(0, number - 1) : number + 2])
            sentences.append(Sentence(position, start, end, text, lead, own | of_lead, near))
            lead, of_lead = "", frozenset()
    return sentences


def shortlist(evidence: Evidence, *, sentences: int, characters: int) -> list[int]:
    """The positions of the sentences worth embedding, in order; none only where there are none."""
    cover = np.array([evidence.coverage(sentence.near) for sentence in evidence.sentences])
    own = np.array([evidence.coverage(sentence.terms) for sentence in evidence.sentences])
    rank = np.array([1 / (1 + sentence.passage) for sentence in evidence.sentences])
    chosen: list[int] = []
    used = 0
    for position in _descending(own + cover + rank)[:sentences]:
        used += len(evidence.sentences[position].read_as)
        if used > characters and chosen:
            break
        chosen.append(position)
    return sorted(chosen)


def _descending(scores: NDArray[np.float64]) -> list[int]:
    return [int(position) for position in np.argsort(-scores, kind="stable")]


def _whole_spans(text: str) -> list[tuple[int, int]]:
    """Sentence spans, where one that ends in a colon goes on to what it announces."""
    spans: list[tuple[int, int]] = []
    announced = False
    for start, end in sentence_spans(text):
        if announced:
            spans[-1] = (spans[-1][0], end)
            announced = False
        else:
            spans.append((start, end))
            announced = text[end - 1] in ":："
    return spans


def _answers_nothing(text: str, passage: Passage) -> bool:
    """Whether a stretch is a heading of its passage, or asks itself."""
    bare = text.strip("#*=_ \t").casefold()
    above = {part.strip().casefold() for part in (passage.title, *passage.heading.split(" > "))}
    return bare in above or text.rstrip("\"'”’»)]*_ ").endswith(("?", "？", "؟"))


def _is_scrap(text: str, terms: frozenset[str]) -> bool:
    """Whether a stretch says too little: a piece of a command, a caption, a page number."""
    is_whole = text[-1] in _CLOSING or " | " in text or _LIST_ITEM.match(text)
    return len(terms) < 3 and not is_whole


def _rarity(question: Question, sentences: Sequence[Sentence]) -> dict[str, float]:
    counts = Counter(term for sentence in sentences for term in sentence.terms)
    total = len(sentences)
    return {
        term: math.log1p((total - counts[term] + 0.5) / (counts[term] + 0.5))
        * (BORROWED_WEIGHT if term in question.borrowed else 1.0)
        for term in question.terms
    }

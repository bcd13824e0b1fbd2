"""Cases grounded in documents: a question, its answer in the document's own words, and where."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

from evals.testsets.review import COLUMN, Row
from evals.testsets.templates import Asked, ask
from infra.contracts import Passage
from infra.sentences import sentence_spans

_WORD = re.compile(r"[^\W_]{4,}")
FEWEST_UNKNOWN = 2
"""Words of a question from elsewhere that the documents must not hold anywhere."""
UNKNOWN_SHARE = 0.5
BLANK = "blank"


def propose(passages: Iterable[Passage], count: int, *, per_document: int = 3) -> list[Row]:
    """Return cases about passages, at most `count`.

    Questions come before sentences with a blank, of which only as many are taken as are lacking.

    Args:
        passages: in an order drawn by chance, which decides which are asked about.
        count: of cases.
        per_document: cases at most; cases of one document are one cluster.
    """
    asked: list[Row] = []
    blanks: list[Row] = []
    counts: dict[str, int] = {}
    for passage in passages:
        if counts.get(passage.document_id, 0) >= per_document:
            continue
        row = next(_cases(passage), None)
        if row is None:
            continue
        if row["template"] == BLANK:
            blanks.append(row)
            continue
        counts[passage.document_id] = counts.get(passage.document_id, 0) + 1
        asked.append(row)
        if len(asked) == count:
            return asked
    for row in blanks:
        if len(asked) < count and counts.get(row["document"], 0) < per_document:
            counts[row["document"]] = counts.get(row["document"], 0) + 1
            asked.append(row)
    return asked


def propose_unanswerable(
    foreign: Iterable[Passage], count: int, *, known: Collection[str]
) -> list[Row]:
    """Return cases about other collections' topics, which these documents cannot answer.

    Args:
        foreign: passages of other collections, in an order drawn by chance.
        count: of cases, at most.
        known: the words of the collection; see `words`.
    """
    found: list[Row] = []
    documents: set[str] = set()
    for passage in foreign:
        if len(found) == count:
            break
        if passage.document_id in documents:
            continue
        for row in _cases(passage, is_wanted=lambda each: _is_unknown(each.question, known)):
            if row["template"] == BLANK:
                continue
            documents.add(passage.document_id)
            found.append(_unanswerable(row))
            break
    return found


def words(text: str) -> set[str]:
    """Return the words of a text that say what it is about."""
    return set(_WORD.findall(text.casefold()))


def _is_unknown(question: str, known: Collection[str]) -> bool:
    asked = words(question)
    unknown = [word for word in asked if word not in known]
    return len(unknown) >= max(FEWEST_UNKNOWN, UNKNOWN_SHARE * len(asked))


def _cases(passage: Passage, is_wanted: Callable[[Asked], bool] = lambda _: True) -> Iterator[Row]:
    """Yield the cases of a passage, questions first, one for each sentence."""
    spans = sentence_spans(passage.text)
    # A chunk may begin within a sentence; one that ends within it has no full stop there.
    whole = [
        span
        for place, span in enumerate(spans)
        if place > 0 or passage.start_char == 0 or passage.text[:1].isupper()
    ]
    found = [
        (asked, start, end)
        for start, end in whole
        for asked in ask(passage.text[start:end], passage.text)[:1]
        if is_wanted(asked)
    ]
    for asked, start, end in sorted(found, key=lambda each: each[0].template == BLANK):
        yield _row(passage, asked, start, end=end)


def _row(passage: Passage, asked: Asked, start: int, *, end: int) -> Row:
    sentence = passage.text[start:end]
    at = passage.start_char + start
    digest = hashlib.sha256(f"{passage.source}\n{sentence}\n{asked.template}".encode())
    return {
        "id": f"{asked.template}-{digest.hexdigest()[:12]}",
        "question": asked.question,
        "answer": sentence[asked.start : asked.end],
        "answerable": True,
        "relevant": passage.source,
        "cluster": passage.document_id,
        "document": passage.document_id,
        "document_version": passage.document_version,
        "chunk": passage.chunk_id,
        "evidence": sentence,
        "evidence_start": at,
        "evidence_end": at + len(sentence),
        "answer_start": at + asked.start,
        "answer_end": at + asked.end,
        "template": asked.template,
        "origin": f"collection {passage.collection}",
        COLUMN: "proposed",
    }


def _unanswerable(row: Row) -> Row:
    """Keep of a case what was asked, and where that came from."""
    kept = ("id", "question", "cluster", "template", "origin", COLUMN)
    found: dict[str, Any] = {name: row[name] for name in kept}
    return {**found, "id": f"un{row['id']}", "answerable": False}

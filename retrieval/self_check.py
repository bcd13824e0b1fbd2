"""Compares a new build with the live one by questions whose answer is known: their own words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select

from infra.database.engine import Database
from infra.database.schema import chunk, document
from retrieval.builds import Verdict
from retrieval.collections import Collection
from retrieval.search import Retriever, SearchRequest

QUESTIONS = 50
WORDS = 12
"""Of a passage, asked for as a question."""
DEPTH = 10
"""Passages among which the document has to be."""


@dataclass(frozen=True, slots=True)
class _KnownItem:
    question: str
    document_id: str
    """The public id."""


def compare(
    database: Database, retriever: Retriever, *, live: Collection, candidate: Collection
) -> Verdict:
    """Let the candidate pass if its index is whole and it finds at least what the live build finds.

    Words are taken from the middle of passages spread evenly over the live build; a build finds
    them if a passage of the same document is among its first ten.
    """
    with database.read() as connection:
        rows = connection.execute(
            select(func.count()).select_from(chunk).where(chunk.c.build_id == candidate.build_id)
        ).scalar_one()
    items = _items(database, live)
    before = after = 0
    for item in items:
        is_known = _is_found(retriever, live, item)
        is_found = _is_found(retriever, candidate, item)
        if is_known and not is_found:  # unless it was deleted in between
            is_known = _is_found(retriever, live, item)
        before += is_known
        after += is_found
    indexed = retriever.count(candidate)
    scores = {
        "questions": float(len(items)),
        "found_by_live": float(before),
        "found_by_candidate": float(after),
        "chunks": float(rows),
        "indexed": float(indexed),
    }
    if indexed != rows:
        reason = f"its index holds {indexed} chunks, the database {rows}"
        return Verdict(False, reason, scores)
    reason = f"it finds {after} of {len(items)} known passages, the live build {before}"
    return Verdict(after >= before, reason, scores)


def _items(database: Database, live: Collection) -> Sequence[_KnownItem]:
    with database.read() as connection:
        numbers = (
            connection.execute(
                select(chunk.c.id).where(chunk.c.build_id == live.build_id).order_by(chunk.c.id)
            )
            .scalars()
            .all()
        )
        step = max(1, len(numbers) // QUESTIONS)
        rows = connection.execute(
            select(chunk.c.text, document.c.file_id)
            .join(document, document.c.id == chunk.c.document_id)
            .where(chunk.c.id.in_(numbers[::step][:QUESTIONS]))
        ).all()
    items = []
    for row in rows:
        words = row.text.split()
        start = max(0, len(words) // 2 - WORDS // 2)
        if words:
            items.append(_KnownItem(" ".join(words[start : start + WORDS]), row.file_id))
    return items


def _is_found(retriever: Retriever, within: Collection, item: _KnownItem) -> bool:
    result = retriever.search(within, SearchRequest(item.question, limit=DEPTH))
    return any(passage.document_id == item.document_id for passage in result.passages)

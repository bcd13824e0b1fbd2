"""Quotes: words of documents that stores elsewhere keep, and that go when their documents do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol

from sqlalchemy import Connection, delete, insert, select

from infra.database.engine import Database
from infra.database.quoting import await_writers
from infra.database.schema import doomed_quote

BATCH = 500
"""Documents that an eraser is told of at once."""


class Eraser(Protocol):
    """Removes whatever a store quotes of documents, given by public id; returns how many entries.

    It is called after the documents are gone, may be called twice for the same ones, and must write
    what it still holds in memory before it looks.
    """

    def __call__(self, document_ids: Sequence[str], /) -> int: ...


class Quotes:
    """The stores that keep words of documents, such as logged answers and caches."""

    def __init__(self, database: Database, erasers: Mapping[str, Eraser] | None = None) -> None:
        """`erasers` by the name that receipts count them under."""
        self._database = database
        self._erasers = dict(erasers or {})

    def erase(self, document_ids: Sequence[str]) -> Mapping[str, int]:
        """Have every store erase; returns how many entries went, by store."""
        counts: Counter[str] = Counter(dict.fromkeys(self._erasers, 0))
        if document_ids:
            await_writers(self._database)
        for start in range(0, len(document_ids), BATCH):
            some = document_ids[start : start + BATCH]
            for name, eraser in self._erasers.items():
                counts[name] += eraser(some)
            with self._database.write() as connection:
                connection.execute(delete(doomed_quote).where(doomed_quote.c.document.in_(some)))
        return dict(counts)

    def sweep(self) -> Mapping[str, int]:
        """Erase what deletions left behind, by whatever way they came."""
        with self._database.read() as connection:
            left = connection.execute(select(doomed_quote.c.document)).scalars().all()
        return self.erase(left)


def doom_quotes(connection: Connection, document_ids: Sequence[str]) -> None:
    """Note with a deletion that other stores are yet to erase what they quote."""
    for start in range(0, len(document_ids), BATCH):
        some = document_ids[start : start + BATCH]
        known = set(
            connection.execute(
                select(doomed_quote.c.document).where(doomed_quote.c.document.in_(some))
            ).scalars()
        )
        rows = [{"document": each} for each in dict.fromkeys(some) if each not in known]
        if rows:
            connection.execute(insert(doomed_quote), rows)

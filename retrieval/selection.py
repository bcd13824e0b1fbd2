"""Selections: which documents a search may look in, kept between searches, in step with writes."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Collection as Many
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, Connection, func, select

from infra.contracts import Access, Readers
from infra.database.engine import Database
from infra.database.schema import change, chunk, document, document_reader, file
from retrieval.access import may_read
from retrieval.collections import Collection
from retrieval.filters import Filter, Kind, check_fields, kind_of, matches

MAX_KEPT = 256
"""Selections, of the callers and filters that asked last."""
MAX_NUMBERS = 4_000_000
"""In all of them together: 32 MB."""
FEW_CHANGES = 2_000
"""Documents that are looked at one by one; after more, everything is read anew."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """What decides whether a document is chosen."""

    readers: Readers
    fields: Mapping[str, Any]


@dataclass(slots=True)
class _Chosen:
    """The documents for one caller and filter."""

    access: Access | None
    filter: Filter | None
    numbers: NDArray[np.int64]
    """Rising; replaced, never changed."""
    fields: Counter[tuple[str, Kind]] = field(default_factory=Counter)
    """How many of them hold a field of a kind; counted where there is no filter."""

    def takes(self, entry: _Entry) -> bool:
        if not may_read(self.access, entry.readers):
            return False
        return self.filter is None or matches(self.filter, entry.fields)

    def count(self, entry: _Entry, step: int) -> None:
        if self.filter is None:
            for name, value in entry.fields.items():
                self.fields[name, kind_of(value)] += step

    def known_fields(self) -> Mapping[str, Many[Kind]]:
        known: dict[str, set[Kind]] = {}
        for (name, kind), held in self.fields.items():
            if held > 0:
                known.setdefault(name, set()).add(kind)
        return known


class Selection:
    """The documents of one build's collection, by who may read them and by their metadata.

    A search hands the numbers to the index, which looks at no other document. They are worked out
    once for a caller and filter; a write afterwards costs what the documents it touched cost.
    """

    def __init__(self, database: Database, collection: Collection) -> None:
        self._database = database
        self._collection = collection
        self._lock = threading.Lock()
        self._sequence = -1
        self._entries: dict[int, _Entry] = {}
        self._kept: OrderedDict[tuple[Access | None, str], _Chosen] = OrderedDict()

    def documents(self, access: Access | None, chosen: Filter | None) -> NDArray[np.int64]:
        """Return the sorted numbers of the documents that are the caller's and match.

        Raises:
            InvalidFilter: it names a field, or compares with a kind of value, that none of the
                caller's documents has.
        """
        with self._lock:
            self._advance()
            readable = self._chosen(access, None)
            if chosen is None:
                return readable.numbers
            if len(readable.numbers):
                check_fields(chosen, readable.known_fields())
            return self._chosen(access, chosen).numbers

    def _chosen(self, access: Access | None, chosen: Filter | None) -> _Chosen:
        # By its text: for Python, a filter for 1 and one for True are the same.
        key = (access, repr(chosen))
        found = self._kept.get(key)
        if found is None:
            found = _Chosen(access, chosen, np.empty(0, dtype=np.int64))
            taken = [number for number, entry in self._entries.items() if found.takes(entry)]
            found.numbers = np.array(sorted(taken), dtype=np.int64)
            for number in taken:
                found.count(self._entries[number], 1)
            self._kept[key] = found
            self._let_go()
        self._kept.move_to_end(key)
        return found

    def _let_go(self) -> None:
        held = sum(len(each.numbers) for each in self._kept.values())
        while len(self._kept) > 1 and (len(self._kept) > MAX_KEPT or held > MAX_NUMBERS):
            _, gone = self._kept.popitem(last=False)
            held -= len(gone.numbers)

    def _advance(self) -> None:
        """Take in what was written since the last time."""
        with self._database.read() as connection:
            mine = change.c.build_id == self._collection.build_id
            latest = connection.execute(select(func.max(change.c.sequence)).where(mine)).scalar()
            latest = int(latest or 0)
            if latest == self._sequence:
                return
            newer = (mine, change.c.sequence > self._sequence)
            touched = None if self._sequence < 0 else _touched(connection, newer)
            if touched is None:
                self._entries = dict(_entries(connection, self._collection))
                self._kept.clear()
            else:
                self._take_in(dict(_entries(connection, self._collection, touched)), touched)
                if _removed_any(connection, newer):
                    self._forget_removed(connection)
        self._sequence = latest

    def _take_in(self, changed: Mapping[int, _Entry], touched: Iterable[int]) -> None:
        numbers = sorted(touched)
        for each in self._kept.values():
            for number in numbers:
                if (old := self._entries.get(number)) is not None and each.takes(old):
                    each.count(old, -1)
            added = [number for number in numbers if number in changed]
            added = [number for number in added if each.takes(changed[number])]
            for number in added:
                each.count(changed[number], 1)
            kept = each.numbers[~np.isin(each.numbers, np.array(numbers, dtype=np.int64))]
            each.numbers = np.sort(np.concatenate([kept, np.array(added, dtype=np.int64)]))
        for number in numbers:
            self._entries.pop(number, None)
        self._entries.update(changed)

    def _forget_removed(self, connection: Connection) -> None:
        # The log tells of chunks that are gone, not whose they were.
        there = connection.execute(
            select(document.c.id).where(document.c.collection_id == self._collection.id)
        )
        gone = self._entries.keys() - set(there.scalars())
        if gone:
            self._take_in({}, gone)


def _touched(connection: Connection, newer: tuple[ColumnElement[bool], ...]) -> list[int] | None:
    """Return the documents that were written to, None if they are too many to look at."""
    numbers = (
        connection.execute(
            select(chunk.c.document_id)
            .distinct()
            .join(change, change.c.chunk_id == chunk.c.id)
            .where(*newer)
            .limit(FEW_CHANGES + 1)
        )
        .scalars()
        .all()
    )
    return None if len(numbers) > FEW_CHANGES else list(numbers)


def _removed_any(connection: Connection, newer: tuple[ColumnElement[bool], ...]) -> bool:
    removed = select(change.c.sequence).where(*newer, change.c.operation == "delete").limit(1)
    return connection.execute(removed).first() is not None


def _entries(
    connection: Connection, whole: Collection, only: list[int] | None = None
) -> Iterable[tuple[int, _Entry]]:
    chosen = document.c.collection_id == whole.id
    if only is not None:
        chosen = chosen & document.c.id.in_(only)
    lists: dict[int, list[str]] = {}
    for number, principal in connection.execute(
        select(document_reader.c.document_id, document_reader.c.principal)
        .join(document, document.c.id == document_reader.c.document_id)
        .where(chosen)
    ):
        lists.setdefault(number, []).append(principal)
    for row in connection.execute(
        select(
            document.c.id,
            document.c.tenant,
            document.c.metadata,
            document.c.source,
            document.c.title,
            file.c.filename,
        )
        .join(file, file.c.id == document.c.file_id)
        .where(chosen)
    ):
        own = {"source": row.source, "title": row.title, "filename": row.filename}
        readers = Readers(row.tenant, tuple(lists.get(row.id, ())))
        yield row.id, _Entry(readers, {**own, **row.metadata})

"""Selections: which documents a search may look in, kept between searches, in step with writes."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Collection as Many
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, Connection, func, select

from infra.contracts import Access, Readers
from infra.database.engine import Database
from infra.database.schema import change, chunk, document, file
from retrieval.access import lists, may_read, readable
from retrieval.collections import Collection
from retrieval.filters import Filter, Kind, check_fields, kind_of, matches

MAX_KEPT = 256
"""Selections, of the callers and filters that asked last."""
MAX_NUMBERS = 4_000_000
"""In all of them together: 32 MB."""
MAX_FIELDS = 100_000
"""Documents whose fields are kept; up to twice those of a caller who may read more."""
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
    fields: Counter[tuple[str, Kind]] | None = None
    """How many of them hold a field of a kind; counted once the caller sends a filter."""

    def takes(self, entry: _Entry) -> bool:
        if not may_read(self.access, entry.readers):
            return False
        return self.filter is None or matches(self.filter, entry.fields)

    def without(self, gone: NDArray[np.int64]) -> NDArray[np.int64]:
        """Let go of documents; returns those that were among them."""
        places = np.searchsorted(self.numbers, gone)
        inside = places < len(self.numbers)
        places, gone = places[inside], gone[inside]
        there = self.numbers[places] == gone
        found: NDArray[np.int64] = gone[there]
        if len(found):
            self.numbers = np.delete(self.numbers, places[there])
        return found

    def count(self, fields: Mapping[str, Any], step: int) -> None:
        if self.fields is not None:
            for name, value in fields.items():
                self.fields[name, kind_of(value)] += step

    def known_fields(self) -> Mapping[str, Many[Kind]]:
        known: dict[str, set[Kind]] = {}
        for (name, kind), held in (self.fields or {}).items():
            if held > 0:
                known.setdefault(name, set()).add(kind)
        return known


class Selection:
    """The documents of one build's collection, by who may read them and by their metadata.

    A search hands the numbers to the index, which looks at no other document. They are worked out
    once for a caller and filter; a write afterwards costs what the documents it touched cost.
    Documents without a chunk, which no search finds, may be told of as they were.
    """

    def __init__(self, database: Database, collection: Collection) -> None:
        self._database = database
        self._collection = collection
        self._lock = threading.Lock()
        self._sequence = -1
        self._fields: dict[int, Mapping[str, Any]] = {}
        """Of the documents of callers who sent a filter."""
        self._kept: OrderedDict[tuple[Access | None, str], _Chosen] = OrderedDict()
        self._count, self._highest = 0, 0
        """Documents there were up to a number, when it was last looked which are gone."""

    def anew(self) -> Selection:
        """Return one that knows nothing yet, and so tells of every document as it is now."""
        return Selection(self._database, self._collection)

    def documents(self, access: Access | None, chosen: Filter | None) -> NDArray[np.int64]:
        """Return the sorted numbers of the documents that are the caller's and match.

        Raises:
            InvalidFilter: it names a field, or compares with a kind of value, that none of the
                caller's documents has.
        """
        with self._lock, self._database.read() as connection:
            self._advance(connection)
            mine = self._readable(connection, access)
            if chosen is None:
                return mine.numbers
            if mine.fields is None:
                self._count_fields(connection, mine)
            if len(mine.numbers):
                check_fields(chosen, mine.known_fields())
            return self._matching(mine, chosen).numbers

    def _readable(self, connection: Connection, access: Access | None) -> _Chosen:
        if (found := self._found(access, None)) is None:
            numbers = connection.execute(
                select(document.c.id).where(self._whole, readable(access))
            ).scalars()
            found = self._keep(_Chosen(access, None, _sorted(numbers)))
        return found

    def _count_fields(self, connection: Connection, mine: _Chosen) -> None:
        read = dict(_fields(connection, self._whole & readable(mine.access)))
        self._fields.update(read)
        mine.numbers, mine.fields = _sorted(read), Counter()
        for fields in read.values():
            mine.count(fields, 1)
        if len(self._fields) > max(MAX_FIELDS, 2 * len(read)):
            for each in self._kept.values():
                if each is not mine:
                    each.fields = None
            self._fields = read

    def _matching(self, mine: _Chosen, chosen: Filter) -> _Chosen:
        if (found := self._found(mine.access, chosen)) is None:
            numbers = [n for n in mine.numbers.tolist() if matches(chosen, self._fields[n])]
            found = self._keep(_Chosen(mine.access, chosen, np.array(numbers, dtype=np.int64)))
        return found

    def _found(self, access: Access | None, chosen: Filter | None) -> _Chosen | None:
        # By its text: for Python, a filter for 1 and one for True are the same.
        key = (access, repr(chosen))
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def _keep(self, found: _Chosen) -> _Chosen:
        self._kept[found.access, repr(found.filter)] = found
        held = sum(len(each.numbers) for each in self._kept.values())
        while len(self._kept) > 1 and (len(self._kept) > MAX_KEPT or held > MAX_NUMBERS):
            _, gone = self._kept.popitem(last=False)
            held -= len(gone.numbers)
        return found

    def _advance(self, connection: Connection) -> None:
        """Take in what was written since the last time."""
        mine = change.c.build_id == self._collection.build_id
        latest = connection.execute(select(func.max(change.c.sequence)).where(mine)).scalar()
        latest = int(latest or 0)
        if latest == self._sequence:
            return
        newer = (mine, change.c.sequence > self._sequence)
        touched = None if self._sequence < 0 else _touched(connection, newer)
        if touched is None:
            self._fields.clear()
            self._kept.clear()
            self._look_at_numbers(connection)
        else:
            self._take_in(_entries(connection, self._whole, touched), _sorted(touched))
            if _removed_any(connection, newer):
                self._forget_removed(connection)
        self._sequence = latest

    def _take_in(self, changed: Mapping[int, _Entry], touched: NDArray[np.int64]) -> None:
        known: dict[int, Mapping[str, Any]] = {}
        for each in self._kept.values():
            for number in each.without(touched).tolist():
                each.count(self._fields.get(number, {}), -1)
            added = [number for number, entry in changed.items() if each.takes(entry)]
            for number in added:
                each.count(changed[number].fields, 1)
            if added:
                each.numbers = np.union1d(each.numbers, added)
            if each.fields is not None:
                known.update((number, changed[number].fields) for number in added)
        for number in touched.tolist():
            self._fields.pop(number, None)
        self._fields.update(known)

    def _forget_removed(self, connection: Connection) -> None:
        # The log tells of chunks that are gone, not whose they were.
        count, highest = self._count, self._highest
        there = self._look_at_numbers(connection, above=highest)
        if self._count - len(there) != count:  # one of those that were there is gone
            highest = 0
            there = self._look_at_numbers(connection, above=0)
        known = [each.numbers[each.numbers > highest] for each in self._kept.values()]
        gone = np.setdiff1d(np.concatenate([*known, _sorted(())]), _sorted(there))
        if len(gone):
            self._take_in({}, gone)

    def _look_at_numbers(
        self, connection: Connection, *, above: int | None = None
    ) -> Sequence[int]:
        """Count the documents; returns the numbers of those `above` one, none without.

        Numbers are not used again, and those of a collection rise in the order of commits.
        """
        self._count, highest = connection.execute(
            select(func.count(), func.max(document.c.id)).where(self._whole)
        ).one()
        self._highest = int(highest or 0)
        if above is None:
            return ()
        numbers = select(document.c.id).where(self._whole, document.c.id > above)
        return connection.execute(numbers).scalars().all()

    @property
    def _whole(self) -> ColumnElement[bool]:
        return document.c.collection_id == self._collection.id


def _sorted(numbers: Iterable[int]) -> NDArray[np.int64]:
    return np.array(sorted(numbers), dtype=np.int64)


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
    connection: Connection, whole: ColumnElement[bool], numbers: list[int]
) -> dict[int, _Entry]:
    chosen = whole & document.c.id.in_(numbers)
    tenants = connection.execute(select(document.c.id, document.c.tenant).where(chosen))
    listed = lists(connection, numbers)
    readers = {number: Readers(tenant, listed.get(number, ())) for number, tenant in tenants}
    return {
        number: _Entry(readers[number], fields) for number, fields in _fields(connection, chosen)
    }


def _fields(
    connection: Connection, chosen: ColumnElement[bool]
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield what filters may compare of each document: its own, and its metadata."""
    rows = connection.execute(
        select(
            document.c.id,
            document.c.source,
            document.c.title,
            file.c.filename,
            document.c.metadata,
        )
        .join(file, file.c.id == document.c.file_id)
        .where(chosen)
    )
    for number, source, title, filename, metadata in rows:
        yield number, {"source": source, "title": title, "filename": filename, **metadata}

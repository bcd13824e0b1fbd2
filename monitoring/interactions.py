"""The log of questions and answers: written in batches off the hot path, read, erased, expired."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeAlias

from sqlalchemy import ColumnElement, Connection, Select, Table, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import StatementError

from infra.contracts import Interaction
from infra.database.engine import Database
from infra.database.interaction_tables import interaction as table
from infra.database.interaction_tables import interaction_document as quoted
from infra.database.monitoring_tables import feedback
from infra.database.quoting import missing
from infra.errors import NotFound, StorageFailed
from monitoring.interaction_queue import InteractionQueue
from monitoring.interaction_rows import as_interaction, as_row

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 0.5
"""How often a batch is written: what a crash can lose."""
TIDY_SECONDS = 3600.0
"""Between two looks for what is too old."""
BATCH = 500
REFUSED = (
    StatementError,
    ArithmeticError,
    AttributeError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What a value raises that no column takes, in the database or on the way to it."""

Dropped: TypeAlias = Literal["full", "refused"]
"""Why an interaction is lost: too many waited for the database, or it did not take this one."""


@dataclass(frozen=True, slots=True)
class Query:
    """Which interactions; what is None does not matter."""

    since: datetime | None = None
    until: datetime | None = None
    kind: str | None = None
    model: str | None = None
    tag: str | None = None
    tenant: str | None = None
    outcome: str | None = None

    def conditions(self) -> Iterator[ColumnElement[bool]]:
        """Yield them as SQL."""
        if self.since is not None:
            yield table.c.at >= self.since
        if self.until is not None:
            yield table.c.at < self.until
        for name in ("kind", "model", "tag", "tenant", "outcome"):
            if (value := getattr(self, name)) is not None:
                yield table.c[name] == value


@dataclass(frozen=True, slots=True)
class _Row:
    """An interaction, and what is written of it."""

    item: Interaction
    values: dict[str, Any]


class Interactions:
    """Takes interactions without waiting and writes them from a thread of its own."""

    def __init__(
        self,
        database: Database,
        *,
        flush_seconds: float = FLUSH_SECONDS,
        queue: InteractionQueue | None = None,
        keep: timedelta | None = None,
        mask: Callable[[str], str] | None = None,
        count_dropped: Callable[[Dropped], None] = lambda _: None,
    ) -> None:
        """Take where they are kept.

        Args:
            database: at the current schema.
            flush_seconds: between two writes.
            queue: of what waits to be written, with its bounds.
            keep: how long they are kept; None is for ever.
            mask: takes personal data out of texts of their content; slow, so it is done here.
            count_dropped: told of each one that is lost, and why.
        """
        self._database = database
        self._flush_seconds = flush_seconds
        self._queue = queue or InteractionQueue()
        self._keep = keep
        self._mask = mask or (lambda text: text)
        self._count_dropped = count_dropped
        self._wake = threading.Event()
        self._is_stopping = False
        self._thread: threading.Thread | None = None
        self._writing = threading.Lock()
        self._rows: list[_Row] = []
        """Of the oldest that wait, made once, however often they are tried."""

    def add(self, item: Interaction) -> None:
        """Take an interaction; never blocks, never raises."""
        if not self._queue.put(item):
            self._count_dropped("full")

    def start(self) -> None:
        """Write what is taken, every `flush_seconds`, until `stop`."""
        self._thread = threading.Thread(target=self._run, name="interactions", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Write what is left and end."""
        self._is_stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.flush()

    def flush(self) -> None:
        """Write everything that was taken so far; what the database will never take is dropped.

        Raises:
            StorageFailed: the database cannot be written to; all is kept for the next time.
        """
        with self._writing:
            while self._rows or self._make_rows():
                try:
                    self._write(self._rows)
                except REFUSED:
                    self._write_singly()
                else:
                    self._let_go(len(self._rows))

    def _run(self) -> None:
        tidied = -TIDY_SECONDS
        while not self._is_stopping:
            self._wake.wait(self._flush_seconds)
            try:
                self.flush()
                if time.monotonic() - tidied > TIDY_SECONDS:
                    tidied = time.monotonic()
                    self.expire(datetime.now(UTC))
            except StorageFailed as error:
                logger.warning("interactions wait for the database: %s", error.message)

    def _make_rows(self) -> bool:
        """Make rows of the oldest, up to one of which none can be made; false if none wait.

        That one is dropped once it is the oldest of all.
        """
        batch = self._queue.first(BATCH)
        for item in batch:
            try:
                self._rows.append(_Row(item, as_row(item, mask=self._mask)))
            except REFUSED as error:
                if self._rows:
                    break
                self._refuse(item, error)
                self._queue.remove(1)
        return bool(batch)

    def _let_go(self, number: int) -> None:
        del self._rows[:number]
        self._queue.remove(number)

    def _write(self, batch: Sequence[_Row]) -> None:
        """Write a batch, or nothing of it; what was written before stays as it is.

        It was so where a connection broke after the commit, or where some of it is tried again.
        """
        items = [each.item for each in batch]
        with self._database.write(durable=False) as connection:
            wanted = {name for item in items for name in item.documents}
            gone = missing(self._database, connection, wanted)
            for each in batch:
                if not gone.isdisjoint(each.item.documents):
                    # A document was erased while the answer was under way.
                    each.values["content"] = None
            self._insert(connection, table, [each.values for each in batch])
            self._insert(connection, quoted, _pairs(connection, items, without=gone))

    def _write_singly(self) -> None:
        while self._rows:
            try:
                self._write(self._rows[:1])
            except REFUSED as error:
                self._refuse(self._rows[0].item, error)
            self._let_go(1)

    def _refuse(self, item: Interaction, error: BaseException) -> None:
        self._count_dropped("refused")
        # Not the error's words: they may hold the values.
        kind = type(getattr(error, "orig", None) or error).__name__
        logger.error("the database did not take interaction %s: %s", item.id, kind)

    def _insert(self, connection: Connection, into: Table, rows: list[dict[str, Any]]) -> None:
        if not rows:
            return
        if self._database.is_sqlite:
            connection.execute(sqlite.insert(into).on_conflict_do_nothing(), rows)
        else:
            connection.execute(postgresql.insert(into).on_conflict_do_nothing(), rows)

    def get(self, id_: str) -> Interaction:
        """Return one interaction.

        Raises:
            NotFound: there is none of that id.
        """
        with self._database.read() as connection:
            row = connection.execute(select(table).where(table.c.id == id_)).first()
            if row is None:
                raise NotFound("interaction", id_)
            return as_interaction(row, _documents(connection, [row.number]).get(row.number, ()))

    def find(
        self, query: Query, *, limit: int = 100, after: str | None = None
    ) -> list[Interaction]:
        """Return interactions, newest first; `after` is the id of the last one seen."""
        statement: Select[Any] = select(table).where(*query.conditions())
        with self._database.read() as connection:
            if after is not None:
                last = connection.execute(
                    select(table.c.number).where(table.c.id == after)
                ).scalar_one_or_none()
                if last is None:
                    raise NotFound("interaction", after)
                statement = statement.where(table.c.number < last)
            rows = connection.execute(
                statement.order_by(table.c.number.desc()).limit(limit)
            ).fetchall()
            documents = _documents(connection, [row.number for row in rows])
        return [as_interaction(row, documents.get(row.number, ())) for row in rows]

    def erase_content(self, file_ids: Sequence[str]) -> int:
        """Remove what interactions quote of documents; the numbers stay. Returns how many."""
        self.flush()
        with self._database.write() as connection:
            numbers = select(quoted.c.interaction_number).where(quoted.c.file_id.in_(file_ids))
            done = connection.execute(
                update(table)
                .where(table.c.number.in_(numbers), table.c.content.is_not(None))
                .values(content=None)
            )
            ids = select(table.c.id).where(table.c.number.in_(numbers))
            connection.execute(
                update(feedback).where(feedback.c.interaction_id.in_(ids)).values(text=None)
            )
            connection.execute(delete(quoted).where(quoted.c.file_id.in_(file_ids)))
        return int(done.rowcount)

    def expire(self, now: datetime) -> int:
        """Remove those that are older than they are to be kept; returns how many."""
        return 0 if self._keep is None else self.delete(Query(until=now - self._keep))

    def delete(self, query: Query) -> int:
        """Remove interactions; returns how many."""
        self.flush()
        with self._database.write() as connection:
            return int(connection.execute(delete(table).where(*query.conditions())).rowcount)


def _pairs(
    connection: Connection, batch: Sequence[Interaction], *, without: set[str]
) -> list[dict[str, Any]]:
    """Return which interaction quotes which document."""
    documents = {item.id: set(item.documents) - without for item in batch if item.documents}
    if not documents:
        return []
    found = connection.execute(
        select(table.c.id, table.c.number).where(table.c.id.in_(documents))
    ).all()
    return [
        {"interaction_number": number, "file_id": file_id}
        for id_, number in found
        for file_id in sorted(documents[id_])
    ]


def _documents(connection: Any, numbers: Sequence[int]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    pairs = select(quoted).where(quoted.c.interaction_number.in_(numbers))
    for number, file_id in connection.execute(pairs.order_by(quoted.c.file_id)):
        found.setdefault(number, []).append(file_id)
    return found

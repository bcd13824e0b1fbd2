"""The log of questions and answers: written in batches off the hot path, read, erased, expired."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Literal, TypeAlias

from sqlalchemy import ColumnElement, Connection, Select, delete, select, update
from sqlalchemy.exc import StatementError

from infra.contracts import Interaction
from infra.database.engine import Database
from infra.database.interaction_tables import interaction as table
from infra.database.interaction_tables import interaction_document as quoted
from infra.database.monitoring_tables import feedback
from infra.database.new_rows import insert_new
from infra.database.quoting import missing
from infra.errors import NotFound, StorageFailed
from monitoring.canary_calls import MISSES
from monitoring.interaction_queue import Taken, Waiting
from monitoring.interaction_replay import BATCH, Replay
from monitoring.interaction_rows import Row, Rows, as_interaction, as_rows
from monitoring.prediction_pairs import COPIES

logger = logging.getLogger(__name__)

TIDY_SECONDS = 3600.0
"""Between two looks for what is too old."""
REFUSED = (StatementError, ArithmeticError, AttributeError, RecursionError, TypeError, ValueError)
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
    copies: bool = True
    """Whether what another version predicted for the same rows counts too, and what a target failed
    that another one was asked then."""
    upstream: str | None = None
    """Of predictions the version that made them: `churn@v3`."""

    def conditions(self) -> Iterator[ColumnElement[bool]]:
        """Yield them as SQL."""
        if self.since is not None:
            yield table.c.at >= self.since
        if self.until is not None:
            yield table.c.at < self.until
        for name in ("kind", "model", "tag", "tenant", "outcome", "upstream"):
            if (value := getattr(self, name)) is not None:
                yield table.c[name] == value
        if not self.copies:
            yield table.c.id.not_like(COPIES)
            yield table.c.id.not_like(MISSES)


class Interactions:
    """Takes interactions without waiting and writes them from a thread of its own."""

    def __init__(
        self,
        database: Database,
        *,
        waiting: Waiting | None = None,
        keep: timedelta | None = None,
        mask: Callable[[str], str] | None = None,
        count_dropped: Callable[[Dropped], None] = lambda _: None,
    ) -> None:
        """Take where they are kept.

        Args:
            database: at the current schema.
            waiting: where they wait to be written, within which bounds, and for how long.
            keep: how long they are kept; None is for ever.
            mask: takes personal data out of texts of their content; slow, so it is done here.
            count_dropped: told of each one that is lost, and why.
        """
        self._database = database
        waiting = waiting or Waiting()
        self._flush_seconds = waiting.flush_seconds
        self._queue = waiting.queue
        self._spool = waiting.spool
        lost = partial(count_dropped, "refused")
        self._replay = Replay(waiting.spool, count_lost=lost) if waiting.spool else None
        self._patience_seconds = None if waiting.spool is None else waiting.patience_seconds
        self._keep = keep
        self._mask = mask
        self._count_dropped = count_dropped
        self._wake = threading.Event()
        self._is_stopping = False
        self._thread: threading.Thread | None = None
        self._writing = threading.Lock()
        self._rows = Rows.of([])
        """Of the oldest that wait, made once, however often they are tried."""
        self._is_down = self._is_disk_down = False
        """Whether the database, and the disk, did not take what they were last given."""

    def add(self, item: Taken) -> None:
        """Take an interaction, or what it is made of later; never blocks, never raises."""
        if not self._queue.put(item):
            self._count_dropped("full")

    def start(self) -> None:
        """Write what is taken, every `flush_seconds`, until `stop`."""
        self._thread = threading.Thread(target=self._run, name="interactions", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Write what is left, to disk if the database is down, and end.

        Raises:
            StorageFailed: neither takes it.
        """
        self._is_stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        with self._writing:
            try:
                self._write_or_put_aside(self._patience_seconds)
            finally:
                if self._spool is not None:
                    self._spool.close()

    def flush(self) -> None:
        """Write everything that was taken so far; what the database will never take is dropped.

        What a database that is down does not take is put on disk, and written later.

        Raises:
            StorageFailed: neither takes it; what is not written is kept for the next time.
        """
        with self._writing:
            self._write_or_put_aside(None)

    @property
    def waiting(self) -> int:
        """How many wait in memory: neither in the database nor on disk."""
        return len(self._queue)

    def spooled_bytes(self) -> int:
        """Return how much waits on disk for the database."""
        return 0 if self._spool is None else self._spool.held_bytes

    def _run(self) -> None:
        tidied = -TIDY_SECONDS
        while not self._is_stopping:
            self._wake.wait(self._flush_seconds)
            try:
                self._look()
                if not self._is_down and time.monotonic() - tidied > TIDY_SECONDS:
                    tidied = time.monotonic()
                    self.expire(datetime.now(UTC))
            except StorageFailed as error:
                logger.warning("the log of interactions is not tidied: %s", error.message)

    def _look(self) -> None:
        """Write what waits, or put it on disk; in the latter way at once while the base is down."""
        with self._writing:
            if self._is_down:
                self._put_aside()
            try:
                self._write_all(self._patience_seconds)
                self._is_down = False
            except StorageFailed as error:
                if not self._is_down:
                    logger.warning("interactions wait for the database: %s", error.message)
                self._is_down = True
                self._put_aside()

    def _write_or_put_aside(self, patience_seconds: float | None) -> None:
        try:
            self._write_all(patience_seconds)
        except StorageFailed:
            if not self._put_aside():
                raise

    def drain(self) -> None:
        """Write everything into the database: what waits elsewhere cannot be removed.

        Raises:
            StorageFailed: the database cannot be written to, or a file on disk not be read.
        """
        with self._writing:
            unread = self._write_all(None)
        if unread is not None:
            raise StorageFailed(f"Interactions wait on disk, unread: {unread}") from unread

    def _write_all(self, patience_seconds: float | None) -> OSError | None:
        """Write what waits on disk, then what waits in memory, in the order in which they came.

        A file that cannot be read keeps nothing else from being written; returns why it could not.
        """
        # Always said: connections that wait as long as all others keep too many large statements.
        patience = self._database.busy_seconds if patience_seconds is None else patience_seconds
        write = partial(self._write, patience_seconds=patience)

        def durably(rows: Sequence[Row], done: Callable[[int], None]) -> None:
            # What is read off the disk is removed from it afterwards.
            self._write_rows(partial(write, durable=True), Rows.of(rows), done)

        unread = None if self._replay is None else self._replay.run(durably)
        while self._rows or self._make_rows():
            self._write_rows(partial(write, durable=False), self._rows, self._let_go)
        return unread

    def _write_rows(
        self, write: Callable[[Rows], None], rows: Rows, done: Callable[[int], None]
    ) -> None:
        """Write rows together, or where the database refuses them, each for itself."""
        try:
            write(rows)
        except REFUSED:
            for each in rows:
                try:
                    write(Rows.of([each]))
                except REFUSED as error:
                    self._refuse(each.id, error)
                done(1)
        else:
            done(len(rows))

    def _put_aside(self) -> bool:
        """Put on disk what waits in memory; returns whether there was room for all of it."""
        while self._spool is not None and (self._rows or self._make_rows()):
            records: list[tuple[int, bytes]] = []
            refused: list[tuple[int, BaseException]] = []
            rows = list(self._rows)
            for place, each in enumerate(rows):
                try:
                    records.append((place, each.encoded()))
                except REFUSED as error:
                    refused.append((place, error))
            try:
                taken = self._spool.append([record for _, record in records])
            except OSError as error:
                if not self._is_disk_down:
                    logger.warning("the disk takes no interactions, they wait in memory: %s", error)
                self._is_disk_down = True
                return False
            self._is_disk_down = False
            done = records[taken][0] if taken < len(records) else len(rows)
            for place, failure in refused:
                if place < done:
                    self._refuse(rows[place].id, failure)
            self._let_go(done)
            if taken < len(records):
                return False
        return self._spool is not None

    def _make_rows(self) -> bool:
        """Make rows of the oldest, up to one of which none can be made; false if none wait.

        That one is dropped once it is the oldest of all.
        """
        batch = self._queue.first(BATCH)
        if not batch:
            return False
        try:
            self._rows = as_rows(batch, mask=self._mask)
        except REFUSED:
            self._rows = self._make_each(batch)
        return True

    def _make_each(self, batch: Sequence[Taken]) -> Rows:
        made: list[Row] = []
        for item in batch:
            try:
                made += as_rows([item], mask=self._mask)
            except REFUSED as error:
                if made:
                    break
                self._refuse(item.id, error)
                self._queue.remove(1)
        return Rows.of(made)

    def _let_go(self, number: int) -> None:
        self._rows = self._rows.after(number)
        self._queue.remove(number)

    def _write(self, batch: Rows, *, durable: bool, patience_seconds: float) -> None:
        """Write a batch, or nothing of it; what was written before stays as it is.

        It was so where a connection broke after the commit, or where some of it is tried again.
        """
        how: dict[str, Any] = {"durable": durable, "patience_seconds": patience_seconds}
        with self._database.write(**how) as connection:
            wanted = set().union(*batch.documents)
            gone = missing(self._database, connection, wanted)
            if gone:  # a document was erased while an answer was under way
                batch = batch.without_quotes(gone)
            insert_new(connection, table, batch.columns)
            if wanted:
                insert_new(connection, quoted, _quotes(connection, batch, without=gone))

    def _refuse(self, id_: str, error: BaseException) -> None:
        self._count_dropped("refused")
        # Not the error's words: they may hold the values.
        kind = type(getattr(error, "orig", None) or error).__name__
        logger.error("the database did not take interaction %s: %s", id_, kind)

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
        self.drain()
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
        until = None if self._keep is None else now - self._keep
        return self._remove(Query(until=until), self._patience_seconds) if until else 0

    def delete(self, query: Query) -> int:
        """Remove interactions, those that wait to be written too; returns how many."""
        self.drain()
        return self._remove(query, None)

    def _remove(self, query: Query, patience_seconds: float | None) -> int:
        with self._database.write(patience_seconds=patience_seconds) as connection:
            return int(connection.execute(delete(table).where(*query.conditions())).rowcount)


def _quotes(connection: Connection, batch: Rows, *, without: set[str]) -> dict[str, list[Any]]:
    """Return the columns of which interaction quotes which document."""
    documents = {row.id: set(row.documents) - without for row in batch if row.documents}
    found = connection.execute(
        select(table.c.id, table.c.number).where(table.c.id.in_(documents))
    ).all()
    pairs = [(number, file_id) for id_, number in found for file_id in sorted(documents[id_])]
    return {
        quoted.c.interaction_number.name: [number for number, _ in pairs],
        quoted.c.file_id.name: [file_id for _, file_id in pairs],
    }


def _documents(connection: Any, numbers: Sequence[int]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    pairs = select(quoted).where(quoted.c.interaction_number.in_(numbers))
    for number, file_id in connection.execute(pairs.order_by(quoted.c.file_id)):
        found.setdefault(number, []).append(file_id)
    return found

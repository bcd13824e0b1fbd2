"""The log of questions and answers: written in batches off the hot path, read, erased, expired."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, delete, insert, select, update

from infra.contracts import Interaction, Usage
from infra.database.engine import Database
from infra.database.interaction_tables import interaction as table
from infra.database.interaction_tables import interaction_document as quoted
from infra.errors import NotFound, StorageFailed

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 0.5
"""How often a batch is written: what a crash can lose."""
TIDY_SECONDS = 3600.0
"""Between two looks for what is too old."""
BATCH = 500
CAPACITY = 50_000
"""Interactions that wait for a slow database; past them the newest are counted and dropped."""
PLAIN = tuple(
    column.name
    for column in table.columns
    if column.name not in {"number", "prompt_tokens", "completion_tokens"}
)
"""Columns that are fields of `Interaction`, by the same name."""


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


class Interactions:
    """Takes interactions without waiting and writes them from a thread of its own."""

    def __init__(
        self,
        database: Database,
        *,
        flush_seconds: float = FLUSH_SECONDS,
        capacity: int = CAPACITY,
        keep: timedelta | None = None,
    ) -> None:
        """Take where they are kept.

        Args:
            database: at the current schema.
            flush_seconds: between two writes.
            capacity: of what waits to be written.
            keep: how long they are kept; None is for ever.
        """
        self._database = database
        self._flush_seconds = flush_seconds
        self._capacity = capacity
        self._keep = keep
        self._waiting: deque[Interaction] = deque()
        self._wake = threading.Event()
        self._is_stopping = False
        self._thread: threading.Thread | None = None
        self._writing = threading.Lock()
        self.dropped = 0
        """Interactions that found no room since the start."""

    def add(self, item: Interaction) -> None:
        """Take an interaction; never blocks, never raises."""
        if len(self._waiting) >= self._capacity:
            self.dropped += 1
            return
        self._waiting.append(item)

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
        """Write everything that was taken so far.

        Raises:
            StorageFailed: the database does not take it; it is kept for the next time.
        """
        with self._writing:
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
                try:
                    self._write(batch)
                except BaseException:
                    self._waiting.extendleft(reversed(batch))
                    raise

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

    def _write(self, batch: Sequence[Interaction]) -> None:
        documents = {item.id: item.documents for item in batch if item.documents}
        with self._database.write(durable=False) as connection:
            connection.execute(insert(table), [_row(item) for item in batch])
            if documents:
                found = connection.execute(
                    select(table.c.id, table.c.number).where(table.c.id.in_(documents))
                )
                pairs = [
                    {"interaction_number": number, "file_id": file_id}
                    for id_, number in found
                    for file_id in sorted(set(documents[id_]))
                ]
                connection.execute(insert(quoted), pairs)

    def get(self, id_: str) -> Interaction:
        """Return one interaction.

        Raises:
            NotFound: there is none of that id.
        """
        with self._database.read() as connection:
            row = connection.execute(select(table).where(table.c.id == id_)).first()
            if row is None:
                raise NotFound("interaction", id_)
            return _interaction(row, _documents(connection, [row.number]).get(row.number, ()))

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
        return [_interaction(row, documents.get(row.number, ())) for row in rows]

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


def _row(item: Interaction) -> dict[str, Any]:
    row = {name: getattr(item, name) for name in PLAIN}
    row["prompt_tokens"] = item.usage.prompt_tokens
    row["completion_tokens"] = item.usage.completion_tokens
    row["content"] = None if item.content is None else dict(item.content)
    return row


def _interaction(row: Any, documents: Sequence[str]) -> Interaction:
    values = {name: getattr(row, name) for name in PLAIN}
    usage = Usage(row.prompt_tokens, row.completion_tokens)
    return Interaction(**values, usage=usage, documents=tuple(documents))


def _documents(connection: Any, numbers: Sequence[int]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    pairs = select(quoted).where(quoted.c.interaction_number.in_(numbers))
    for number, file_id in connection.execute(pairs.order_by(quoted.c.file_id)):
        found.setdefault(number, []).append(file_id)
    return found

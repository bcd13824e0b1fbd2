"""Stored responses: bounded in number and size, seen by their own tenant, deleted for good."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Connection, delete, insert, select

from infra.database.engine import Database
from infra.database.quoting import missing
from infra.database.response_tables import response as table
from infra.database.response_tables import response_document as quoted
from infra.database.schema import file
from infra.errors import Conflict, NotFound, TooLarge
from retrieval.files import visible
from service.callers import Caller
from service.responses.turns import Message


@dataclass(frozen=True, slots=True)
class Stored:
    """A response as it was told, what was asked, and the whole conversation up to it."""

    body: dict[str, Any]
    items: Sequence[dict[str, Any]]
    """Of the request, without those of earlier turns."""
    messages: Sequence[Message]
    """Of all turns, the answer of this one included."""
    documents: tuple[str, ...] = ()
    """Public ids of those that any of its turns may quote."""


class ResponseStore:
    """Keeps the newest responses of each tenant; its oldest make room."""

    def __init__(self, database: Database, *, most: Callable[[], int], most_bytes: int) -> None:
        """Take where they are kept.

        Args:
            database: at the current schema.
            most: returns how many responses are kept at most of one tenant, or of one key without.
            most_bytes: of one response with all its turns; a longer conversation ends.
        """
        self._database = database
        self._most = most
        self._most_bytes = most_bytes

    def put(self, stored: Stored, caller: Caller) -> None:
        """Keep a response.

        Raises:
            TooLarge: the conversation is longer than one may be.
            Conflict: a document that it may quote is gone.
        """
        size = len(orjson.dumps([stored.body, stored.items, stored.messages]))
        if size > self._most_bytes:
            raise TooLarge(
                f"The conversation takes {size:,} bytes, {self._most_bytes:,} are kept; "
                "begin a new one, or send store = false"
            )
        with self._database.write() as connection:
            if gone := missing(self._database, connection, stored.documents):
                raise Conflict(f"Document {min(gone)!r} was removed while the answer was written")
            number = connection.execute(
                insert(table)
                .values(
                    id=stored.body["id"],
                    created_at=datetime.now(UTC),
                    tenant=caller.tenant,
                    key_id=caller.key_id,
                    body=stored.body,
                    items=list(stored.items),
                    messages=list(stored.messages),
                )
                .returning(table.c.number)
            ).scalar_one()
            quotes = set(stored.documents)
            names = [{"response_number": number, "file_id": each} for each in quotes]
            if names:
                connection.execute(insert(quoted), names)
            own = _own(caller)
            newest_too_many = (
                select(table.c.number)
                .where(*own)
                .order_by(table.c.number.desc())
                .offset(self._most())
                .limit(1)
                .scalar_subquery()
            )
            connection.execute(delete(table).where(*own, table.c.number <= newest_too_many))

    def get(self, id_: str, caller: Caller) -> Stored:
        """Return a response that the caller may see.

        Raises:
            NotFound: there is none, it is another tenant's, or it quotes what is not the caller's
                to read.
        """
        with self._database.read() as connection:
            row = connection.execute(select(table).where(table.c.id == id_)).first()
            if row is None or not _is_of(row, caller):
                raise NotFound("response", id_)
            quotes = select(quoted.c.file_id).where(quoted.c.response_number == row.number)
            documents = connection.execute(quotes.order_by(quoted.c.file_id)).scalars().all()
            if _is_secret(connection, documents, caller):
                raise NotFound("response", id_)
        return Stored(row.body, row.items, row.messages, tuple(documents))

    def check(self, id_: str, documents: Collection[str], caller: Caller) -> None:
        """Refuse a response that is not stored as `get` does one that is.

        Raises:
            NotFound: it quotes what is not the caller's to read.
        """
        with self._database.read() as connection:
            if _is_secret(connection, documents, caller):
                raise NotFound("response", id_)

    def delete(self, id_: str, caller: Caller) -> None:
        """Remove a response; those that went on from it keep what they copied.

        Raises:
            NotFound: as `get`.
        """
        self.get(id_, caller)
        with self._database.write() as connection:
            connection.execute(delete(table).where(table.c.id == id_))

    def erase(self, file_ids: Sequence[str]) -> int:
        """Remove every response that quotes one of these documents; returns how many."""
        with self._database.write() as connection:
            numbers = select(quoted.c.response_number).where(quoted.c.file_id.in_(file_ids))
            return int(
                connection.execute(delete(table).where(table.c.number.in_(numbers))).rowcount
            )


def _is_secret(connection: Connection, documents: Collection[str], caller: Caller) -> bool:
    """Whether one of some documents is not the caller's to read."""
    secret = select(file.c.id).where(file.c.id.in_(documents), ~visible(caller.access))
    return connection.execute(secret.limit(1)).first() is not None


def _own(caller: Caller) -> list[ColumnElement[bool]]:
    """Return which responses share a bound with the caller's."""
    own = [table.c.tenant == caller.tenant]
    return own if caller.tenant is not None else [*own, table.c.key_id == caller.key_id]


def _is_of(row: Any, caller: Caller) -> bool:
    """A tenant sees its own; so does a key without one, and where none is asked for, everybody."""
    if caller.key_id is None:
        return True
    if caller.tenant is None:
        return bool(row.key_id == caller.key_id)
    return bool(row.tenant == caller.tenant)

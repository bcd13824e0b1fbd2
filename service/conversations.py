"""Conversations kept here: bounded, removed with age, each seen by its tenant alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    and_,
    delete,
    func,
    insert,
    select,
    update,
)

from infra.database.conversation_tables import (
    conversation,
    conversation_item,
    conversation_item_document,
)
from infra.database.engine import Database
from infra.database.quoting import missing
from infra.database.schema import file
from infra.errors import NotFound, TooLarge
from infra.security import new_id
from infra.settings import Conversations as Limits
from retrieval.files import visible
from retrieval.paging import Page, fetch_page
from service.callers import Caller
from service.engines import Turn

SWEPT_AT_ONCE = 100
"""Conversations that have aged or are too many, removed with each one that is made."""


@dataclass(frozen=True, slots=True)
class Conversation:
    id: str
    attributes: Mapping[str, str]
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Said:
    """A message to add."""

    role: str
    content: Sequence[Mapping[str, Any]]
    """OpenAI's parts."""
    documents: tuple[str, ...] = ()
    """Public ids of the documents that it may quote: it is erased with them."""

    @classmethod
    def of(cls, role: str, text: str, *, documents: tuple[str, ...] = ()) -> Said:
        """Return a plain text as a message."""
        kind = "output_text" if role == "assistant" else "input_text"
        part: dict[str, Any] = {"type": kind, "text": text}
        content = [{**part, "annotations": []} if role == "assistant" else part]
        return cls(role, content, documents)


@dataclass(frozen=True, slots=True)
class Item:
    """A message as it is kept."""

    id: str
    role: str
    content: Sequence[Mapping[str, Any]]

    @property
    def text(self) -> str:
        return "\n".join(str(part.get("text") or "") for part in self.content)


@dataclass(frozen=True, slots=True)
class History:
    """The latest messages of a conversation, oldest first."""

    turns: tuple[Turn, ...] = ()
    documents: tuple[str, ...] = ()
    """Public ids of the documents that they may quote: what is made of them may, too."""


class Conversations:
    """Makes, finds, grows and removes conversations; a caller sees its tenant's.

    Of their messages it sees those that quote nothing but what it may read.
    """

    def __init__(
        self,
        database: Database,
        limits: Limits,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._database = database
        self._limits = limits
        self._clock = clock

    def create(
        self, caller: Caller, *, attributes: Mapping[str, str], items: Sequence[Said] = ()
    ) -> Conversation:
        """Make a conversation, with its first messages; the tenant's least used makes room.

        Raises:
            TooLarge: a message is larger than a conversation may be.
        """
        now = self._clock()
        made = Conversation(new_id("conv_"), dict(attributes), now)
        with self._database.write() as connection:
            items = self._standing(connection, items)
            self._sweep(connection, now)
            connection.execute(
                insert(conversation).values(
                    id=made.id,
                    tenant=caller.tenant,
                    attributes=dict(attributes),
                    created_at=now,
                    updated_at=now,
                )
            )
            row = self._find(connection, caller, made.id)
            self._append(connection, row.number, items, now)
            self._make_room(connection, caller)
        return made

    def get(self, caller: Caller, id: str) -> Conversation:
        """Return a conversation.

        Raises:
            NotFound: there is none, it has aged, or it is another tenant's.
        """
        with self._database.read() as connection:
            return _conversation(self._find(connection, caller, id))

    def update(self, caller: Caller, id: str, *, attributes: Mapping[str, str]) -> Conversation:
        """Replace what is noted about a conversation."""
        with self._database.write() as connection:
            row = self._find(connection, caller, id)
            connection.execute(
                update(conversation)
                .where(conversation.c.number == row.number)
                .values(attributes=dict(attributes), updated_at=self._clock())
            )
        return Conversation(row.id, dict(attributes), row.created_at)

    def delete(self, caller: Caller, id: str) -> None:
        """Remove a conversation with all that was said."""
        with self._database.write() as connection:
            row = self._find(connection, caller, id)
            _remove(connection, [row.number])

    def append(self, caller: Caller, id: str, items: Sequence[Said]) -> list[Item]:
        """Add messages; the oldest give way where there are more than may be kept.

        One that quotes a document which is gone by now is left out.

        Raises:
            TooLarge: a message is larger than a conversation may be.
        """
        now = self._clock()
        with self._database.write() as connection:
            items = self._standing(connection, items)
            row = self._find(connection, caller, id)
            return self._append(connection, row.number, items, now)

    def items(
        self,
        caller: Caller,
        id: str,
        *,
        limit: int,
        after: str | None = None,
        descending: bool = True,
    ) -> Page[Item]:
        """Return a page of the messages."""
        with self._database.read() as connection:
            within = _within(self._find(connection, caller, id), caller)
            return _page(connection, within, limit=limit, after=after, descending=descending)

    def item(self, caller: Caller, id: str, item_id: str) -> Item:
        """Return one message."""
        with self._database.read() as connection:
            return _item(self._find_item(connection, caller, id, item_id))

    def delete_item(self, caller: Caller, id: str, item_id: str) -> Conversation:
        """Remove one message; returns the conversation it was in."""
        with self._database.write() as connection:
            row = self._find(connection, caller, id)
            found = self._find_item(connection, caller, id, item_id)
            connection.execute(
                delete(conversation_item).where(conversation_item.c.number == found.number)
            )
            return _conversation(row)

    def history(self, caller: Caller, id: str) -> History:
        """Return the latest messages, and what they may quote."""
        with self._database.read() as connection:  # one snapshot: both before an erasure, or after
            row = self._find(connection, caller, id)
            if not self._limits.history_items:
                return History()
            within = _within(row, caller)
            latest = _page(connection, within, limit=self._limits.history_items).items
            quoted = connection.execute(
                select(conversation_item_document.c.file_id)
                .where(conversation_item_document.c.item_id.in_([item.id for item in latest]))
                .distinct()
            ).scalars()
            turns = tuple(_turn(item) for item in reversed(latest) if item.text.strip())
            return History(turns, tuple(quoted))

    def _find(self, connection: Connection, caller: Caller, id: str) -> Row[Any]:
        oldest = self._clock() - timedelta(days=self._limits.keep_days)
        statement = select(conversation).where(
            conversation.c.id == id, conversation.c.updated_at >= oldest
        )
        if caller.tenant is not None:
            statement = statement.where(conversation.c.tenant == caller.tenant)
        row = connection.execute(statement).first()
        if row is None:
            raise NotFound("conversation", id)
        return row

    def _find_item(self, connection: Connection, caller: Caller, id: str, item_id: str) -> Row[Any]:
        row = self._find(connection, caller, id)
        found = connection.execute(
            select(conversation_item).where(conversation_item.c.id == item_id, _within(row, caller))
        ).first()
        if found is None:
            raise NotFound("item", item_id)
        return found

    def erase(self, file_ids: Sequence[str]) -> int:
        """Remove every message that may quote one of these documents; returns how many."""
        quoting = select(conversation_item_document.c.item_id).where(
            conversation_item_document.c.file_id.in_(file_ids)
        )
        with self._database.write() as connection:
            gone = connection.execute(
                delete(conversation_item).where(conversation_item.c.id.in_(quoting))
            )
        return int(gone.rowcount)

    def _standing(self, connection: Connection, items: Sequence[Said]) -> Sequence[Said]:
        quoted = {each for one in items for each in one.documents}
        gone = missing(self._database, connection, quoted)
        return [one for one in items if gone.isdisjoint(one.documents)]

    def _append(
        self, connection: Connection, number: int, items: Sequence[Said], now: datetime
    ) -> list[Item]:
        kept = [Item(new_id("msg_"), one.role, list(one.content)) for one in items]
        rows = [
            {
                "id": item.id,
                "conversation_number": number,
                "role": item.role,
                "content": list(item.content),
                "bytes": _bytes(item),
                "created_at": now,
            }
            for item in kept
        ]
        largest = max(map(_bytes, kept), default=0)
        if largest > self._limits.max_bytes:
            raise TooLarge(
                f"A message of {largest:,} bytes does not fit into a conversation, which "
                f"holds {self._limits.max_bytes:,}",
                parameter="items",
            )
        if rows:
            connection.execute(insert(conversation_item), rows)
        quotes = [
            {"item_id": item.id, "file_id": each}
            for item, one in zip(kept, items, strict=True)
            for each in set(one.documents)
        ]
        if quotes:
            connection.execute(insert(conversation_item_document), quotes)
        connection.execute(
            update(conversation).where(conversation.c.number == number).values(updated_at=now)
        )
        self._trim(connection, number)
        return kept

    def _trim(self, connection: Connection, number: int) -> None:
        """Remove the oldest messages until the limits hold."""
        within = conversation_item.c.conversation_number == number
        sizes = connection.execute(
            select(conversation_item.c.number, conversation_item.c.bytes)
            .where(within)
            .order_by(conversation_item.c.number.desc())
        ).all()
        total = 0
        for position, (item, size) in enumerate(sizes):
            total += size
            if position >= self._limits.max_items or total > self._limits.max_bytes:
                connection.execute(
                    delete(conversation_item).where(within, conversation_item.c.number <= item)
                )
                return

    def _sweep(self, connection: Connection, now: datetime) -> None:
        oldest = now - timedelta(days=self._limits.keep_days)
        aged = connection.scalars(
            select(conversation.c.number)
            .where(conversation.c.updated_at < oldest)
            .order_by(conversation.c.updated_at)
            .limit(SWEPT_AT_ONCE)
        ).all()
        if aged:
            _remove(connection, aged)

    def _make_room(self, connection: Connection, caller: Caller) -> None:
        too_many = connection.scalars(
            select(conversation.c.number)
            .where(conversation.c.tenant == caller.tenant)
            .order_by(conversation.c.updated_at.desc(), conversation.c.number.desc())
            .offset(self._limits.max_conversations)
            .limit(SWEPT_AT_ONCE)
        ).all()
        if too_many:
            _remove(connection, too_many)

    def count(self) -> int:
        """Return how many conversations there are, aged ones too."""
        with self._database.read() as connection:
            return int(connection.scalar(select(func.count()).select_from(conversation)) or 0)


def _page(
    connection: Connection,
    within: ColumnElement[bool],
    *,
    limit: int,
    after: str | None = None,
    descending: bool = True,
) -> Page[Item]:
    page = fetch_page(
        connection,
        select(conversation_item).where(within),
        key=conversation_item.c.number,
        cursor=conversation_item.c.id,
        limit=limit,
        after=after,
        before=None,
        descending=descending,
        within=within,
    )
    return page.map(_item)


def _within(row: Row[Any], caller: Caller) -> ColumnElement[bool]:
    """Which messages are of a conversation, and quote nothing that the caller may not read."""
    mine: ColumnElement[bool] = conversation_item.c.conversation_number == row.number
    if caller.access is None:
        return mine
    quotes = conversation_item_document
    secret = (
        select(quotes.c.item_id)
        .join(file, file.c.id == quotes.c.file_id)
        .where(quotes.c.item_id == conversation_item.c.id, ~visible(caller.access))
    )
    return and_(mine, ~secret.exists())


def _remove(connection: Connection, numbers: Sequence[int]) -> None:
    within = conversation_item.c.conversation_number.in_(numbers)
    connection.execute(delete(conversation_item).where(within))
    connection.execute(delete(conversation).where(conversation.c.number.in_(numbers)))


def _bytes(item: Item) -> int:
    return len(orjson.dumps(list(item.content)))


def _conversation(row: Row[Any]) -> Conversation:
    return Conversation(row.id, row.attributes, row.created_at)


def _item(row: Row[Any]) -> Item:
    return Item(row.id, row.role, row.content)


def _turn(item: Item) -> Turn:
    if item.role == "assistant":
        return Turn("assistant", item.text)
    return Turn("user" if item.role == "user" else "system", item.text)

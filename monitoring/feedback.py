"""What people say of answers and predictions: votes, corrections, labels, also late ones."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias, cast

from sqlalchemy import Connection, insert, select
from sqlalchemy.exc import IntegrityError

from infra.database.engine import Database
from infra.database.interaction_tables import interaction
from infra.database.monitoring_tables import feedback as table
from infra.errors import InvalidRequest, NotFound
from infra.security import new_id
from monitoring.canary_calls import MISSES
from monitoring.prediction_pairs import COPIES

FeedbackKind: TypeAlias = Literal["thumbs", "correction", "label"]
MOST_CHARACTERS = 20_000


@dataclass(frozen=True, slots=True)
class Statement:
    """What somebody says of an interaction."""

    interaction_id: str
    """Its id, or the `x-request-id` of the request that caused it."""
    kind: FeedbackKind
    value: str = ""
    """`up` or `down` of thumbs; the label that is right."""
    text: str | None = None
    """The answer as it should have been, or a remark."""
    key_id: str | None = None
    """Whose statement it is."""
    tenant: str | None = None
    """Whose interactions may be meant; None are all."""


@dataclass(frozen=True, slots=True)
class Feedback:
    """A statement as it is stored."""

    id: str
    interaction_id: str
    at: datetime
    kind: FeedbackKind
    value: str
    text: str | None
    is_new: bool = False
    """Whether this statement was stored now; said again, it is the one there is."""


class FeedbackStore:
    """Keeps statements; what was returned is committed."""

    def __init__(
        self,
        database: Database,
        *,
        flush: Callable[[], None] = lambda: None,
        mask: Callable[[str], str] | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Take where they are kept.

        Args:
            database: at the current schema.
            flush: writes interactions that still wait: an answer may be voted on at once.
            mask: takes personal data out of texts.
            now: the time of day.
        """
        self._database = database
        self._flush = flush
        self._mask = mask or (lambda text: text)
        self._now = now

    def add(self, said: Statement) -> Feedback:
        """Store a statement; the same statement of the same caller is stored once.

        Raises:
            InvalidRequest: a vote is neither up nor down, a correction has no text, or a request
                caused several interactions.
            NotFound: there is no such interaction, or it is another tenant's.
            StorageFailed: the database cannot be written to; nothing was stored.
        """
        _check(said)
        value = self._mask(said.value) if said.kind == "label" else said.value
        text = None if said.text is None else self._mask(said.text)
        try:
            return self._add(said, value, text)
        except NotFound:
            self._flush()
            return self._add(said, value, text)

    def of(self, interaction_id: str) -> list[Feedback]:
        """Return what was said of an interaction, in order."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(table)
                .where(table.c.interaction_id == interaction_id)
                .order_by(table.c.number)
            )
            return [_read(row) for row in rows]

    def _add(self, said: Statement, value: str, text: str | None) -> Feedback:
        with self._database.write() as connection:
            id_ = _find(connection, said)
            parts = (said.key_id or "", said.kind, value, text or "")
            digest = hashlib.sha256("\x00".join(parts).encode()).hexdigest()
            row = {
                "id": new_id("feedback-"),
                "interaction_id": id_,
                "at": self._now(),
                "key_id": said.key_id,
                "kind": said.kind,
                "value": value,
                "text": text,
                "digest": digest,
            }
            try:
                with connection.begin_nested():
                    connection.execute(insert(table).values(**row))
            except IntegrityError:
                same = (table.c.interaction_id == id_, table.c.digest == digest)
                return _read(connection.execute(select(table).where(*same)).one())
        kept = ("id", "interaction_id", "at", "kind", "value", "text")
        return Feedback(**{name: cast("Any", row[name]) for name in kept}, is_new=True)


def _check(said: Statement) -> None:
    if said.kind == "thumbs" and said.value not in {"up", "down"}:
        raise InvalidRequest(f"A vote is up or down, not {said.value!r}", parameter="value")
    if said.kind == "label" and not 0 < len(said.value) <= 255:
        raise InvalidRequest("A label has 1 to 255 characters", parameter="value")
    if said.kind == "correction" and not said.text:
        raise InvalidRequest(
            "A correction needs the text that would have been right", parameter="text"
        )
    if said.text is not None and len(said.text) > MOST_CHARACTERS:
        raise InvalidRequest(
            f"The text has {len(said.text):,} characters, and at most {MOST_CHARACTERS:,} are kept",
            parameter="text",
        )


def _find(connection: Connection, said: Statement) -> str:
    """Return the id of the interaction that is meant."""
    own = [] if said.tenant is None else [interaction.c.tenant == said.tenant]
    name = said.interaction_id
    by_id = select(interaction.c.id).where(interaction.c.id == name, *own)
    found: Sequence[str] = connection.scalars(by_id).all()
    if not found:
        own += [interaction.c.id.not_like(each) for each in (COPIES, MISSES)]
        by_request = select(interaction.c.id).where(interaction.c.request_id == name, *own)
        found = connection.scalars(by_request.limit(2)).all()
    if not found:
        raise NotFound("interaction", name)
    if len(found) > 1:
        raise InvalidRequest(
            f"The request {name!r} caused several interactions; give the id of one",
            parameter="interaction_id",
        )
    return found[0]


def _read(row: Any) -> Feedback:
    return Feedback(row.id, row.interaction_id, row.at, row.kind, row.value, row.text)

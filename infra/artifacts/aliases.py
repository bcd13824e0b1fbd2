"""Names that move: by compare-and-swap, behind fencing tokens, with a history to roll back on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, Row, Select, insert, select, update
from sqlalchemy.sql.elements import ColumnElement

from infra.artifacts.refs import check_alias, in_utc, split
from infra.artifacts.tables import alias, alias_log
from infra.errors import Conflict, NotFound

Action = Literal["move", "rollback", "remove"]
Unchecked = Literal["anything"]


@dataclass(frozen=True, slots=True)
class Pointer:
    """One alias of one name."""

    kind: str
    name: str
    alias: str

    @classmethod
    def of(cls, name: str, alias_name: str) -> Pointer:
        """From `kind/name` and an alias.

        Raises:
            InvalidRequest: either is malformed.
        """
        return cls(*split(name), check_alias(alias_name))

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}@{self.alias}"


@dataclass(frozen=True, slots=True)
class Move:
    """What happened to an alias."""

    action: Action
    before: str | None
    """Digest; `None` if the alias did not exist."""
    after: str | None
    """Digest; `None` if the alias was removed."""
    token: int
    actor: str | None
    at: datetime


@dataclass(frozen=True, slots=True)
class Guard:
    """What must hold for a move to happen."""

    expect: str | None | Unchecked = "anything"
    """The digest the alias must point at now; `None` if it must not exist yet."""
    token: int | None = None
    """The fence of a job's attempt, and nothing else: all fences are one sequence. One that is
    smaller than the largest seen is refused."""
    holds: Callable[[Connection], None] | None = None
    """Called in the transaction that moves the alias, to raise if it must not; the `guard` of a
    job's attempt refuses one that was superseded, also where its heir has moved nothing yet."""


def move(
    connection: Connection,
    pointer: Pointer,
    *,
    to: str | None,
    guard: Guard,
    now: datetime,
    actor: str | None = None,
) -> Move:
    """Point an alias at a digest, or remove it.

    The caller holds the store's lock.

    Raises:
        Conflict: the alias points elsewhere than expected, or the token is no longer the newest.
    """
    return _move(
        connection, pointer, Move("move" if to else "remove", None, to, 0, actor, now), guard
    )


def roll_back(
    connection: Connection, pointer: Pointer, *, guard: Guard, now: datetime, actor: str | None
) -> Move:
    """Point an alias back at what it pointed at before its present target was put there.

    Raises:
        Conflict: there is nothing before, or the guard does not hold.
    """
    row = _row(connection, pointer)
    current = row.digest if row else None
    earlier = connection.execute(
        _log_of(pointer)
        .where(alias_log.c.action == "move", alias_log.c.after == current)
        .order_by(alias_log.c.id.desc())
        .limit(1)
    ).one_or_none()
    if earlier is None or earlier.before is None:
        raise Conflict(f"{str(pointer)!r} has no earlier target to roll back to")
    return _move(connection, pointer, Move("rollback", None, earlier.before, 0, actor, now), guard)


def targets(connection: Connection, kind: str) -> dict[tuple[str, str], str]:
    """Return, by name and alias, the digest that every alias of a kind points at."""
    rows = connection.execute(
        select(alias.c.name, alias.c.alias, alias.c.digest).where(
            alias.c.kind == kind, alias.c.digest.is_not(None)
        )
    )
    return {(row.name, row.alias): row.digest for row in rows}


def history(connection: Connection, pointer: Pointer) -> list[Move]:
    """Return the moves of an alias, newest first.

    Raises:
        NotFound: it never moved.
    """
    rows = connection.execute(_log_of(pointer).order_by(alias_log.c.id.desc())).all()
    if not rows:
        known = connection.scalars(
            select(alias.c.alias).where(alias.c.kind == pointer.kind, alias.c.name == pointer.name)
        )
        raise NotFound("alias", pointer.alias, among=known)
    return [
        Move(row.action, row.before, row.after, row.token, row.actor, in_utc(row.at))
        for row in rows
    ]


def _move(connection: Connection, pointer: Pointer, wanted: Move, guard: Guard) -> Move:
    if guard.holds is not None:
        guard.holds(connection)
    row = _row(connection, pointer)
    current, token = (row.digest, row.token) if row else (None, 0)
    if guard.token is not None and guard.token < token:
        raise Conflict(
            f"{str(pointer)!r} was moved with token {token}; {guard.token!r} is older: another "
            "attempt has taken over, and this one must stop"
        )
    if guard.expect != "anything" and guard.expect != current:
        raise Conflict(
            f"{str(pointer)!r} points at {current!r}, not at {guard.expect!r}; look again and retry"
        )
    token = max(token, guard.token or 0)
    done = Move(wanted.action, current, wanted.after, token, wanted.actor, wanted.at)
    if current == wanted.after:
        if row is not None and token > row.token:
            _write(connection, pointer, digest=current, token=token, now=row.moved_at)
        return done
    _write(connection, pointer, digest=wanted.after, token=token, now=wanted.at)
    connection.execute(
        insert(alias_log).values(
            kind=pointer.kind,
            name=pointer.name,
            alias=pointer.alias,
            action=done.action,
            before=done.before,
            after=done.after,
            token=token,
            actor=done.actor,
            at=done.at,
        )
    )
    return done


def _write(
    connection: Connection, pointer: Pointer, *, digest: str | None, token: int, now: datetime
) -> None:
    values = {"digest": digest, "token": token, "moved_at": now}
    changed = connection.execute(update(alias).where(*_is(pointer)).values(**values))
    if not changed.rowcount:
        connection.execute(
            insert(alias).values(
                kind=pointer.kind, name=pointer.name, alias=pointer.alias, **values
            )
        )


def _row(connection: Connection, pointer: Pointer) -> Row[Any] | None:
    return connection.execute(select(alias).where(*_is(pointer))).one_or_none()


def _is(pointer: Pointer) -> tuple[ColumnElement[bool], ...]:
    return (
        alias.c.kind == pointer.kind,
        alias.c.name == pointer.name,
        alias.c.alias == pointer.alias,
    )


def _log_of(pointer: Pointer) -> Select[Any]:
    return select(alias_log).where(
        alias_log.c.kind == pointer.kind,
        alias_log.c.name == pointer.name,
        alias_log.c.alias == pointer.alias,
    )

"""API keys: created, listed, changed, rotated, revoked; what a key opens and may use."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, TypedDict, cast

from sqlalchemy import Connection, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from infra.database.engine import Database
from infra.database.money import revision
from infra.database.schema import api_key
from infra.errors import Conflict, InvalidRequest, NotFound
from infra.security import fingerprint, new_id, new_key
from service.callers import NO_LIMITS, SCOPES, Caller, Limits, Scope

MAX_NAME = 255
MAX_LISTED = 100
"""Groups, patterns of models, patterns of collections; of each."""
MAX_DAYS = 36_500.0
_LIMITS = ("requests_per_minute", "tokens_per_minute", "max_concurrent")


@dataclass(frozen=True, slots=True)
class Key:
    id: str
    name: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    caller: Caller

    def is_valid(self, now: datetime) -> bool:
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)

    def state(self, now: datetime) -> str:
        """Return `valid`, `revoked` or `expired`."""
        if self.revoked_at is not None:
            return "revoked"
        return "valid" if self.is_valid(now) else "expired"


@dataclass(frozen=True, slots=True)
class Opens:
    """What a new key opens, and how much of it; None is everything."""

    tenant: str | None = None
    groups: tuple[str, ...] = ()
    scopes: tuple[Scope, ...] | None = None
    models: tuple[str, ...] | None = None
    collections: tuple[str, ...] | None = None
    limits: Limits = NO_LIMITS

    def __post_init__(self) -> None:
        if self.tenant is not None:
            _check_word(self.tenant, "tenant")
        for name in ("groups", "models", "collections"):
            _check_words(getattr(self, name), name)
        unknown = set(self.scopes or ()) - SCOPES
        if unknown or self.scopes == ():
            given = repr(sorted(unknown)[0]) if unknown else "an empty list"
            known = ", ".join(sorted(SCOPES))
            raise InvalidRequest(f"{given} is no scope; there are {known}", parameter="scopes")


class Changes(TypedDict, total=False):
    """What of a key is to change; what is left out stays, None takes a limit away."""

    groups: tuple[str, ...]
    scopes: tuple[Scope, ...] | None
    models: tuple[str, ...] | None
    collections: tuple[str, ...] | None
    requests_per_minute: int | None
    tokens_per_minute: int | None
    max_concurrent: int | None
    expires_at: datetime | None


class Keys:
    """The keys that open this service, as the database has them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(
        self, name: str, *, expires_in: timedelta | None = None, opens: Opens | None = None
    ) -> tuple[Key, str]:
        """Create a key; its text is returned here and never again.

        Raises:
            Conflict: the name is taken.
        """
        opens = opens or Opens()
        _check_word(name, "name")
        now = datetime.now(UTC)
        text = new_key()
        try:
            with self._database.write() as connection:
                connection.execute(
                    insert(api_key).values(
                        id=new_id("key_"),
                        name=name,
                        fingerprint=fingerprint(text),
                        created_at=now,
                        expires_at=now + expires_in if expires_in is not None else None,
                        tenant=opens.tenant,
                        revision=next_revision(connection, "keys"),
                        **_columns(_as_changes(opens)),
                    )
                )
        except IntegrityError as error:
            raise Conflict(f"A key named {name!r} exists already") from error
        return self.get(name), text

    def list(self, *, limit: int | None = None, after: str | None = None) -> list[Key]:
        """Return keys, the oldest first; `after` is the id of the last one of the page before."""
        query = select(*COLUMNS).order_by(api_key.c.created_at, api_key.c.id).limit(limit)
        if after is not None:
            last = self.get(after)
            later = api_key.c.created_at > last.created_at
            same = (api_key.c.created_at == last.created_at) & (api_key.c.id > last.id)
            query = query.where(or_(later, same))
        with self._database.read() as connection:
            return [key_of(row) for row in connection.execute(query)]

    def has_valid(self, now: datetime) -> bool:
        """True if there is a key that opens anything."""
        is_in_time = or_(api_key.c.expires_at.is_(None), api_key.c.expires_at > now)
        query = select(api_key.c.id).where(api_key.c.revoked_at.is_(None), is_in_time).limit(1)
        with self._database.read() as connection:
            return connection.execute(query).first() is not None

    def get(self, name: str) -> Key:
        """Return the key of that name or id.

        Raises:
            NotFound: there is none; near names are suggested.
        """
        query = select(*COLUMNS).where(or_(api_key.c.name == name, api_key.c.id == name))
        with self._database.read() as connection:
            rows = connection.execute(query).all()
            # One key's name may be another's id: the id is what cannot be meant by chance.
            row = next((row for row in rows if row.id == name), rows[0] if rows else None)
            if row is None:
                names = connection.scalars(select(api_key.c.name).limit(1000)).all()
                raise NotFound("key", name, among=names)
        return key_of(row)

    def names(self, ids: Iterable[str]) -> dict[str, str]:
        """Return the names of keys by their ids."""
        wanted = sorted(set(ids))
        found: dict[str, str] = {}
        with self._database.read() as connection:
            for start in range(0, len(wanted), 500):
                some = api_key.c.id.in_(wanted[start : start + 500])
                query = select(api_key.c.id, api_key.c.name).where(some)
                found |= {row.id: row.name for row in connection.execute(query)}
        return found

    def change(self, name: str, changes: Changes) -> Key:
        """Change what a key opens and may use, also of requests to come in running servers.

        Raises:
            Conflict: the key is revoked.
        """
        key = self.get(name)
        limits = {each: changes[each] for each in _LIMITS if each in changes}  # type: ignore[literal-required]
        Opens(
            groups=changes.get("groups", ()),
            scopes=changes.get("scopes"),
            models=changes.get("models"),
            collections=changes.get("collections"),
            limits=replace(NO_LIMITS, **limits),
        )
        return self._update(key, _columns(changes))

    def rotate(self, name: str, *, grace: timedelta = timedelta(0)) -> tuple[Key, str]:
        """Give a key another text, shown here and never again; the old one opens for `grace` still.

        Raises:
            Conflict: the key is revoked.
        """
        key = self.get(name)
        text = new_key()
        values = {
            "previous_fingerprint": api_key.c.fingerprint,
            "previous_until": datetime.now(UTC) + grace,
            "fingerprint": fingerprint(text),
        }
        return self._update(key, values), text

    def revoke(self, name: str) -> Key:
        """Shut a key out, within a second everywhere; the name stays taken, for the record."""
        key = self.get(name)
        if key.revoked_at is not None:
            return key
        return self._update(key, {"revoked_at": datetime.now(UTC)})

    def _update(self, key: Key, values: Mapping[str, Any]) -> Key:
        with self._database.write() as connection:
            done = connection.execute(
                update(api_key)
                .where(api_key.c.id == key.id, api_key.c.revoked_at.is_(None))
                .values(revision=next_revision(connection, "keys"), **values)
            )
        if not done.rowcount:
            raise Conflict(f"The key {key.name!r} is revoked; create another")
        return self.get(key.id)


def next_revision(connection: Connection, name: str) -> int:
    """Count a change; whoever counts waits for the one before to commit, so none is overlooked."""
    of = revision.c.name == name
    connection.execute(update(revision).where(of).values(number=revision.c.number + 1))
    return int(connection.execute(select(revision.c.number).where(of)).scalar_one())


COLUMNS = tuple(
    api_key.c[name]
    for name in (
        *("id", "name", "created_at", "expires_at", "revoked_at", "last_used_at"),
        *("tenant", "groups", "scopes", "models", "collections"),
        *_LIMITS,
    )
)


def key_of(row: Any) -> Key:
    """Return the key that a row of `COLUMNS` is."""
    times = (row.created_at, row.expires_at, row.revoked_at, row.last_used_at)
    return Key(row.id, row.name, *times, caller=caller_of(row))


def caller_of(row: Any) -> Caller:
    """Return who comes with the key that a row of `COLUMNS` is."""
    limits = (row.requests_per_minute, row.tokens_per_minute, row.max_concurrent)
    return Caller(
        key_id=row.id,
        name=row.name,
        # Many keys have the same of both: kept once, they leave room for more keys.
        tenant=None if row.tenant is None else sys.intern(row.tenant),
        groups=frozenset(row.groups or ()),
        scopes=SCOPES if row.scopes is None else _scopes(*row.scopes),
        models=None if row.models is None else tuple(row.models),
        collections=None if row.collections is None else tuple(row.collections),
        limits=NO_LIMITS if limits == (None, None, None) else Limits(*limits),
    )


def lifetime(days: float | None) -> timedelta | None:
    """Return for how long a key is to open.

    Raises:
        InvalidRequest: the time is negative, or longer than a century.
    """
    if days is None:
        return None
    if not 0 <= days <= MAX_DAYS:
        raise InvalidRequest(
            f"A key cannot last {days!r} days; between 0 and {MAX_DAYS:,.0f} it can",
            parameter="expires_in_days",
        )
    return timedelta(days=days)


@lru_cache(maxsize=256)
def _scopes(*scopes: Scope) -> frozenset[Scope]:
    return frozenset(scopes)


def _as_changes(opens: Opens) -> Changes:
    limits = opens.limits
    return Changes(
        groups=opens.groups,
        scopes=opens.scopes,
        models=opens.models,
        collections=opens.collections,
        requests_per_minute=limits.requests_per_minute,
        tokens_per_minute=limits.tokens_per_minute,
        max_concurrent=limits.max_concurrent,
    )


def _columns(changes: Changes) -> dict[str, Any]:
    values = cast("dict[str, Any]", dict(changes))
    for name in ("groups", "scopes", "models", "collections"):
        if name in values:
            values[name] = None if values[name] is None else list(values[name])
    return values


def _check_words(words: tuple[str, ...] | None, parameter: str) -> None:
    if words is not None and len(words) > MAX_LISTED:
        raise InvalidRequest(
            f"A key cannot have {len(words)} {parameter}; {MAX_LISTED} it can", parameter=parameter
        )
    for word in words or ():
        _check_word(word, parameter)


def _check_word(word: str, parameter: str) -> None:
    is_text = word.strip() and len(word) <= MAX_NAME and word.isprintable()
    if not is_text:
        raise InvalidRequest(
            f"{word[:80]!r} cannot stand in {parameter} of a key; "
            f"1 to {MAX_NAME} printable characters can",
            parameter=parameter,
        )

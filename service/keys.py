"""API keys: created, listed, revoked, checked."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError

from infra.database.engine import Database
from infra.database.schema import api_key
from infra.errors import Conflict, InvalidRequest, NotFound, Unauthenticated
from infra.security import fingerprint, new_id, new_key
from service.callers import SCOPES, Caller, Scope

USE_NOTED_EVERY = timedelta(minutes=1)
"""`last_used_at` is for people who tidy up; writing it on every request would tax them all."""


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


@dataclass(frozen=True, slots=True)
class Opens:
    """What a new key opens; None is everything."""

    tenant: str | None = None
    groups: tuple[str, ...] = ()
    scopes: tuple[Scope, ...] | None = None
    models: tuple[str, ...] | None = None
    collections: tuple[str, ...] | None = None


class Keys:
    """The keys that open this service."""

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
        if not name.strip() or len(name) > 255:
            raise InvalidRequest(f"{name!r} cannot name a key", parameter="name")
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
                        expires_at=now + expires_in if expires_in else None,
                        tenant=opens.tenant,
                        groups=list(opens.groups) or None,
                        scopes=_listed(opens.scopes),
                        models=_listed(opens.models),
                        collections=_listed(opens.collections),
                    )
                )
        except IntegrityError as error:
            raise Conflict(f"A key named {name!r} exists already") from error
        return self.get(name), text

    def list(self) -> list[Key]:
        with self._database.read() as connection:
            rows = connection.execute(select(*_COLUMNS).order_by(api_key.c.created_at))
            return [_key(row) for row in rows]

    def get(self, name: str) -> Key:
        """Return the key of that name or id."""
        for key in (known := self.list()):
            if name in {key.name, key.id}:
                return key
        raise NotFound("key", name, among=[key.name for key in known])

    def revoke(self, name: str) -> Key:
        """Shut a key out from the next request on; the name stays taken, for the record."""
        key = self.get(name)
        with self._database.write() as connection:
            connection.execute(
                update(api_key)
                .where(api_key.c.id == key.id, api_key.c.revoked_at.is_(None))
                .values(revoked_at=datetime.now(UTC))
            )
        return self.get(key.id)

    def check(self, text: str) -> Key:
        """Return the key that was presented.

        Raises:
            Unauthenticated: it is unknown, revoked or expired; which of them is not said.
        """
        now = datetime.now(UTC)
        with self._database.read() as connection:
            row = connection.execute(
                select(*_COLUMNS).where(api_key.c.fingerprint == fingerprint(text))
            ).first()
        key = _key(row) if row else None
        if key is None or not key.is_valid(now):
            raise Unauthenticated("Incorrect API key; create one with `ragstone keys create NAME`")
        if key.last_used_at is None or now - key.last_used_at > USE_NOTED_EVERY:
            with self._database.write() as connection:
                connection.execute(
                    update(api_key).where(api_key.c.id == key.id).values(last_used_at=now)
                )
        return key


_COLUMNS = (
    api_key.c.id,
    api_key.c.name,
    api_key.c.created_at,
    api_key.c.expires_at,
    api_key.c.revoked_at,
    api_key.c.last_used_at,
    api_key.c.tenant,
    api_key.c.groups,
    api_key.c.scopes,
    api_key.c.models,
    api_key.c.collections,
)


def _key(row: Any) -> Key:
    caller = Caller(
        key_id=row.id,
        name=row.name,
        tenant=row.tenant,
        groups=frozenset(row.groups or ()),
        scopes=SCOPES if row.scopes is None else frozenset(row.scopes),
        models=None if row.models is None else tuple(row.models),
        collections=None if row.collections is None else tuple(row.collections),
    )
    return Key(
        row.id, row.name, row.created_at, row.expires_at, row.revoked_at, row.last_used_at, caller
    )


def _listed(values: tuple[str, ...] | None) -> list[str] | None:
    return None if values is None else list(values)

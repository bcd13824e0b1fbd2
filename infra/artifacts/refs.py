"""Names of artifacts: `kind/name@v12`, `@alias`, `@sha256:...`; `kind/name` is the newest."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, func, insert, or_, select, update
from sqlalchemy.sql.elements import ColumnElement

from infra.artifacts.storage import checked
from infra.artifacts.tables import alias, artifact, version
from infra.errors import InvalidRequest, NotFound

_WORD = r"[a-z0-9][a-z0-9_-]{0,63}"
_NAME = re.compile(rf"(?P<kind>{_WORD})/(?P<name>[A-Za-z0-9][A-Za-z0-9._-]{{0,127}})")
_VERSION = re.compile(r"v([1-9][0-9]{0,8})")
_ALIAS = re.compile(_WORD)
_SUGGESTED = 200


@dataclass(frozen=True, slots=True)
class Reference:
    """What a name meant when it was looked up."""

    kind: str
    name: str
    digest: str
    version: int | None = None
    """`None` if the digest has no living version under this name."""

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}@{f'v{self.version}' if self.version else self.digest}"

    @property
    def pinned(self) -> str:
        """The same content, whatever becomes of versions and aliases."""
        return f"{self.kind}/{self.name}@{self.digest}"


@dataclass(frozen=True, slots=True)
class Version:
    """A row of an artifact's history."""

    reference: Reference
    created_at: datetime
    expires_at: datetime | None
    job: str | None
    aliases: tuple[str, ...]
    """Those that point at its content now."""


def split(name: str) -> tuple[str, str]:
    """Return kind and name of `kind/name`.

    Raises:
        InvalidRequest: it is not of that form.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise InvalidRequest(
            f"{name!r} is not a name such as 'dataset/faq': a kind in lower case, '/', then "
            "letters, digits, '.', '_' and '-'"
        )
    return match["kind"], match["name"]


def check_alias(name: str) -> str:
    """Return the alias.

    Raises:
        InvalidRequest: it could be taken for a version, or holds other characters than `a-z0-9_-`.
    """
    if not _ALIAS.fullmatch(name) or _VERSION.fullmatch(name):
        raise InvalidRequest(
            f"{name!r} is not an alias: use lower case letters, digits, '_' and '-', but not v1"
        )
    return name


def check_role(role: str) -> str:
    """Return the role of a parent.

    Raises:
        InvalidRequest: it holds other characters than `a-z0-9_-`.
    """
    if not _ALIAS.fullmatch(role):
        raise InvalidRequest(f"{role!r} is not a role: use lower case letters, digits, '_', '-'")
    return role


def look_up(connection: Connection, text: str, *, now: datetime) -> Reference:
    """Return what a reference means now.

    Raises:
        InvalidRequest: it is malformed.
        NotFound: it means nothing; the nearest names are suggested.
    """
    full_name, _, selector = text.partition("@")
    kind, name = split(full_name)
    if not selector:
        return _latest(connection, kind, name, now=now)
    if match := _VERSION.fullmatch(selector):
        digest = connection.scalar(
            select(version.c.digest).where(
                *_named(kind, name), version.c.n == int(match[1]), living(now)
            )
        )
        found = Reference(kind, name, digest, int(match[1])) if digest else None
    elif ":" in selector:
        found = _by_digest(connection, kind, name, digest=checked(selector))
    else:
        digest = aliased(connection, kind, name, alias_name=check_alias(selector))
        found = (
            Reference(kind, name, digest, _number(connection, kind, name, digest=digest, now=now))
            if digest
            else None
        )
    if found is None:
        _latest(connection, kind, name, now=now)  # says so if the name itself is unknown
        raise NotFound("artifact", text, among=_selectors(connection, kind, name, now=now))
    return found


def add_version(
    connection: Connection, reference: Reference, *, now: datetime, job: str | None = None
) -> Reference:
    """Give an artifact the next number under its name, unless it is the newest already.

    The caller holds the store's lock, so that no number is taken twice.
    """
    kind, name, digest = reference.kind, reference.name, reference.digest
    found = newest(connection, kind, name, now=now)
    if found is not None and found.digest == digest:
        return found
    highest = connection.scalar(select(func.max(version.c.n)).where(*_named(kind, name)))
    number = (highest or 0) + 1
    connection.execute(
        insert(version).values(
            kind=kind, name=name, n=number, digest=digest, job=job, created_at=now
        )
    )
    return Reference(kind, name, digest, number)


def newest(connection: Connection, kind: str, name: str, *, now: datetime) -> Reference | None:
    """Return the newest living version of a name, `None` if there is none."""
    row = connection.execute(
        select(version.c.n, version.c.digest)
        .where(*_named(kind, name), living(now))
        .order_by(version.c.n.desc())
        .limit(1)
    ).one_or_none()
    return Reference(kind, name, row.digest, row.n) if row else None


def expire(connection: Connection, reference: Reference, *, at: datetime | None) -> None:
    """Say from when on a version keeps nothing alive; `None` for never."""
    connection.execute(
        update(version)
        .where(*_named(reference.kind, reference.name), version.c.n == reference.version)
        .values(expires_at=at)
    )


def versions(connection: Connection, kind: str, name: str, *, now: datetime) -> list[Version]:
    """Return the living versions of a name, newest first.

    Raises:
        NotFound: there is no such name.
    """
    _latest(connection, kind, name, now=now)
    rows = connection.execute(
        select(version).where(*_named(kind, name), living(now)).order_by(version.c.n.desc())
    )
    by_digest: dict[str, list[str]] = {}
    for row in connection.execute(
        select(alias.c.alias, alias.c.digest).where(alias.c.kind == kind, alias.c.name == name)
    ):
        by_digest.setdefault(row.digest, []).append(row.alias)
    return [
        Version(
            Reference(kind, name, row.digest, row.n),
            in_utc(row.created_at),
            in_utc(row.expires_at) if row.expires_at else None,
            row.job,
            tuple(sorted(by_digest.get(row.digest, ()))),
        )
        for row in rows
    ]


def names(connection: Connection, *, kind: str | None, now: datetime) -> list[Reference]:
    """Return the newest living version of every name, of one kind or of all, sorted."""
    highest = select(version.c.kind, version.c.name, func.max(version.c.n).label("n"))
    highest = highest.where(living(now)).group_by(version.c.kind, version.c.name)
    if kind is not None:
        highest = highest.where(version.c.kind == kind)
    found = highest.subquery()
    rows = connection.execute(
        select(version.c.kind, version.c.name, version.c.digest, version.c.n)
        .join_from(
            version,
            found,
            (version.c.kind == found.c.kind)
            & (version.c.name == found.c.name)
            & (version.c.n == found.c.n),
        )
        .order_by(version.c.kind, version.c.name)
    )
    return [Reference(*row) for row in rows]


def aliased(connection: Connection, kind: str, name: str, *, alias_name: str) -> str | None:
    """Return the digest an alias points at, `None` if there is no such alias."""
    digest: str | None = connection.scalar(
        select(alias.c.digest).where(
            alias.c.kind == kind, alias.c.name == name, alias.c.alias == alias_name
        )
    )
    return digest


def living(now: datetime) -> ColumnElement[bool]:
    """The condition that a version has not expired."""
    return or_(version.c.expires_at.is_(None), version.c.expires_at > now)


def in_utc(moment: datetime) -> datetime:
    """SQLite forgets the zone; all moments are stored in UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _latest(connection: Connection, kind: str, name: str, *, now: datetime) -> Reference:
    found = newest(connection, kind, name, now=now)
    if found is None:
        known = [f"{other.kind}/{other.name}" for other in names(connection, kind=None, now=now)]
        raise NotFound("artifact", f"{kind}/{name}", among=known)
    return found


def _by_digest(connection: Connection, kind: str, name: str, *, digest: str) -> Reference | None:
    # An alias or a lease may keep alive what has no living version.
    kept = connection.scalar(
        select(artifact.c.digest).where(
            artifact.c.digest == digest,
            artifact.c.collected_at.is_(None),
            or_(
                select(version.c.id)
                .where(*_named(kind, name), version.c.digest == digest)
                .exists(),
                select(alias.c.alias)
                .where(alias.c.kind == kind, alias.c.name == name, alias.c.digest == digest)
                .exists(),
            ),
        )
    )
    if kept is None:
        return None
    return Reference(kind, name, digest, _number(connection, kind, name, digest=digest, now=None))


def _number(
    connection: Connection, kind: str, name: str, *, digest: str, now: datetime | None
) -> int | None:
    conditions = [*_named(kind, name), version.c.digest == digest]
    if now is not None:
        conditions.append(living(now))
    number: int | None = connection.scalar(select(func.max(version.c.n)).where(*conditions))
    return number


def _named(kind: str, name: str) -> Iterable[ColumnElement[bool]]:
    return (version.c.kind == kind, version.c.name == name)


def _selectors(connection: Connection, kind: str, name: str, *, now: datetime) -> list[str]:
    numbers = connection.scalars(
        select(version.c.n)
        .where(*_named(kind, name), living(now))
        .order_by(version.c.n.desc())
        .limit(_SUGGESTED)
    )
    aliases = connection.scalars(
        select(alias.c.alias).where(
            alias.c.kind == kind, alias.c.name == name, alias.c.digest.is_not(None)
        )
    )
    return [f"{kind}/{name}@{word}" for word in (*(f"v{n}" for n in numbers), *aliases)]

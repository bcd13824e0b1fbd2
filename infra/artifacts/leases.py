"""Who is reading and writing: keeps the collector away from what they need."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, func, insert, select

from infra.artifacts.refs import in_utc
from infra.artifacts.tables import gc_run, lease
from infra.security import new_id

LOCK = 0x7261_6761
"""Held while a version is committed, an alias moved, a lease taken or a batch collected."""
LEASE = timedelta(hours=24)
"""How long a reader or writer that died keeps the collector away."""


@dataclass(frozen=True, slots=True)
class Lease:
    id: str
    condemned: int
    """Objects that collectors had condemned when it began."""


def take(
    connection: Connection, *, now: datetime, digest: str | None = None, span: timedelta = LEASE
) -> Lease:
    """Begin to read the artifact `digest`, or to write one; the caller holds the store's lock."""
    taken = Lease(new_id("lease-"), condemned(connection))
    connection.execute(
        insert(lease).values(id=taken.id, digest=digest, started_at=now, expires_at=now + span)
    )
    return taken


def give_back(connection: Connection, lease_id: str) -> None:
    connection.execute(delete(lease).where(lease.c.id == lease_id))


def condemned(connection: Connection) -> int:
    """Return how many objects all collectors so far have condemned."""
    return int(connection.scalar(select(func.coalesce(func.sum(gc_run.c.condemned), 0))) or 0)


def read_digests(connection: Connection, *, now: datetime) -> set[str]:
    """Return the artifacts that are being read."""
    return set(
        connection.scalars(
            select(lease.c.digest).where(lease.c.digest.is_not(None), lease.c.expires_at > now)
        )
    )


def active(connection: Connection, *, now: datetime) -> set[str]:
    """Return the ids of the leases in force."""
    return set(connection.scalars(select(lease.c.id).where(lease.c.expires_at > now)))


def oldest_writer(connection: Connection, *, now: datetime) -> datetime | None:
    """Return when the first of the writers at work began; what is newer may be theirs."""
    started = connection.scalar(
        select(func.min(lease.c.started_at)).where(
            lease.c.digest.is_(None), lease.c.expires_at > now
        )
    )
    return in_utc(started) if started else None

"""Collects what nothing refers to, to the trash first, and for good later; safe beside writers."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, delete, insert, select, union, update

from infra.artifacts import leases, stat_cache, trash
from infra.artifacts.contents import load, objects
from infra.artifacts.refs import living
from infra.artifacts.storage import Item, Storage, digest_of, key_of
from infra.artifacts.tables import alias, artifact, gc_run, lease, version
from infra.database.engine import Database

GRACE = timedelta(hours=24)
"""Objects younger than this stay: a writer may be about to refer to them."""
TRASH = timedelta(days=7)
REMEMBERED = timedelta(days=30)
_T = TypeVar("_T")
_BATCH = 64
"""Objects moved while the store's lock is held."""


@dataclass(frozen=True, slots=True)
class Collected:
    """What was collected, or would have been."""

    artifacts: int = 0
    """Without living version, alias or lease; their rows stay for lineage."""
    trashed: int = 0
    """Objects moved to the trash."""
    trashed_bytes: int = 0
    purged: int = 0
    """Objects gone for good."""
    purged_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Policy:
    grace: timedelta = GRACE
    trash: timedelta = TRASH
    dry_run: bool = False
    """Count only."""


class Collector:
    """One run over one store.

    Args:
        roots: digests of further artifacts to keep, such as those that running jobs have locked;
            asked again before every batch.
    """

    def __init__(
        self,
        storage: Storage,
        database: Database,
        *,
        clock: Callable[[], datetime],
        policy: Policy,
        roots: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        self._storage = storage
        self._database = database
        self._clock = clock
        self._now = clock()
        self._policy = policy
        self._roots = roots
        self._marked: set[str] = set()
        self._live: set[str] = set()
        self._condemned = 0
        self._others: int | None = None
        self._run_id: Any = None

    def run(self) -> Collected:
        """Collect.

        Raises:
            StorageFailed: a manifest in use is damaged, so that what it needs is unknown; nothing
                more is collected until it is repaired.
        """
        with self._database.write(lock=leases.LOCK) as connection:
            writer = leases.oldest_writer(connection, now=self._now)
            self._run_id = connection.scalar(
                insert(gc_run)
                .values(started_at=self._now, dry_run=self._policy.dry_run)
                .returning(gc_run.c.id)
            )
        cutoff = min(filter(None, [self._now - self._policy.grace, writer]))
        dead = self._retire(cutoff)
        with self._database.read() as connection:
            self._mark(connection, without=dead)
        found = Collected(artifacts=len(dead))
        # Purged first: a writer that is at work when something is discarded can fetch it back.
        found = self._purge(min(filter(None, [self._now - self._policy.trash, writer])), found)
        for room in ("manifests", "packs", "blobs"):
            found = self._sweep(room, cutoff, found)
        if not self._policy.dry_run:
            self._tidy(cutoff)
        self._record(found)
        return found

    def _retire(self, cutoff: datetime) -> set[str]:
        """Mark artifacts as collected, so that nobody begins to read them."""
        with self._database.read() as connection:
            young = artifact.c.created_at >= cutoff
            known = connection.scalars(select(artifact.c.digest).where(_kept(), ~young))
            dead = set(known) - self._needed(connection)
        if self._policy.dry_run or not dead:
            return dead
        self._condemn(len(dead))
        with self._database.write(lock=leases.LOCK) as connection:
            dead -= self._needed(connection)
            for some in _batches(sorted(dead), 500):
                connection.execute(
                    update(artifact)
                    .where(artifact.c.digest.in_(some))
                    .values(collected_at=self._now)
                )
        return dead

    def _needed(self, connection: Connection) -> set[str]:
        named = union(
            select(version.c.digest).where(living(self._now)),
            select(alias.c.digest).where(alias.c.digest.is_not(None)),
        )
        leased = leases.read_digests(connection, now=self._now)
        return set(connection.scalars(named)) | leased | set(self._roots())

    def _mark(self, connection: Connection, *, without: Iterable[str] = ()) -> None:
        """Add to the live objects those of artifacts that were not seen before."""
        others = leases.condemned(connection) - self._condemned
        if others != self._others:
            # Another collector was at work. What it retired may have been stored again since, in
            # other packs than those that were seen here.
            self._marked.clear()
            self._others = others
        kept = set(connection.scalars(select(artifact.c.digest).where(_kept())))
        for digest in sorted(kept - self._marked - set(without)):
            self._live.add(key_of("manifests", digest))
            self._live.update(objects(load(self._storage, digest)))
            self._marked.add(digest)

    def _sweep(self, room: str, cutoff: datetime, found: Collected) -> Collected:
        candidates = (
            item
            for item in self._storage.list(room)
            if item.key not in self._live
            and item.modified < cutoff.timestamp()
            and digest_of(item.key)
        )
        for batch in _batches(candidates, _BATCH):
            moved = batch if self._policy.dry_run else self._discard(batch)
            found = replace(
                found,
                trashed=found.trashed + len(moved),
                trashed_bytes=found.trashed_bytes + sum(item.size for item in moved),
            )
        return found

    def _discard(self, batch: Iterable[Item]) -> tuple[Item, ...]:
        batch = tuple(batch)
        self._condemn(len(batch))
        with self._database.write(lock=leases.LOCK) as connection:
            self._mark(connection)
            return tuple(
                item
                for item in batch
                if item.key not in self._live
                and trash.discard(self._storage, item.key, now=self._clock())
            )

    def _purge(self, cutoff: datetime, found: Collected) -> Collected:
        for batch in _batches(trash.older(self._storage, cutoff), _BATCH):
            if not self._policy.dry_run:
                with self._database.write(lock=leases.LOCK):
                    for item in batch:
                        self._storage.delete(item.key)
            found = replace(
                found,
                purged=found.purged + len(batch),
                purged_bytes=found.purged_bytes + sum(item.size for item in batch),
            )
        return found

    def _tidy(self, cutoff: datetime) -> None:
        """Remove what writers that died left behind."""
        left = list(_left_over(self._storage.scratch, cutoff))
        with self._database.write(lock=leases.LOCK) as connection:
            active = leases.active(connection, now=self._now)
            connection.execute(delete(lease).where(lease.c.expires_at <= self._now))
            stat_cache.forget(connection, before=self._now - REMEMBERED)
        for path in left:
            if path.name not in active:
                with suppress(FileNotFoundError):  # another collector was here first
                    shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _condemn(self, count: int) -> None:
        # Committed before anything moves: a writer that commits later sees it, and looks.
        self._condemned += count
        with self._database.write() as connection:
            connection.execute(
                update(gc_run)
                .where(gc_run.c.id == self._run_id)
                .values(condemned=gc_run.c.condemned + count)
            )

    def _record(self, found: Collected) -> None:
        with self._database.write() as connection:
            connection.execute(
                update(gc_run)
                .where(gc_run.c.id == self._run_id)
                .values(
                    finished_at=self._now,
                    trashed=found.trashed,
                    purged=found.purged,
                    bytes=found.trashed_bytes,
                )
            )


def _kept() -> Any:
    return artifact.c.collected_at.is_(None)


def _left_over(scratch: Path, cutoff: datetime) -> Iterator[Path]:
    if not scratch.is_dir():
        return
    with os.scandir(scratch) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):  # its writer is alive, and has put it in its place
                if entry.stat(follow_symlinks=False).st_mtime < cutoff.timestamp():
                    yield Path(entry.path)


def _batches(items: Iterable[_T], size: int) -> Iterator[tuple[_T, ...]]:
    iterator = iter(items)
    while batch := tuple(islice(iterator, size)):
        yield batch

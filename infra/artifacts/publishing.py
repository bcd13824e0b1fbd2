"""Makes files a version: under a lease, bytes first, then the manifest, database row last."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, insert, select, update

from infra.artifacts import contents, intake, leases, refs, stat_cache, trash
from infra.artifacts.files import Files, storage_errors
from infra.artifacts.formats import refuse_executable
from infra.artifacts.leases import Lease
from infra.artifacts.manifest import Parent, Stored, build
from infra.artifacts.refs import Reference
from infra.artifacts.storage import Storage, key_of
from infra.artifacts.tables import artifact, edge
from infra.artifacts.tree import Limits, SourceFile, scan
from infra.database.engine import Database
from infra.errors import NotFound, StorageFailed, TooLarge

MAX_JOB_CHARACTERS = 255


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a store works with; tests hand in a clock that they turn and files that fail."""

    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    files: Files = field(default_factory=Files)
    limits: Limits = field(default_factory=Limits)
    workers: int = field(default_factory=lambda: min(32, 4 * (os.cpu_count() or 1)))
    """Threads that hash and copy."""


@dataclass(frozen=True, slots=True)
class Made:
    """How an artifact came to be."""

    metadata: Mapping[str, Any] = field(default_factory=dict)
    """JSON values; part of its identity."""
    parents: Sequence[tuple[str, str]] = ()
    """`(role, reference)` of what it was made from; part of its identity."""
    job: str | None = None
    """What made it, in at most 255 characters; not part of its identity."""

    def __post_init__(self) -> None:
        if len(self.job or "") > MAX_JOB_CHARACTERS:
            raise TooLarge(f"Job {self.job!r} is longer than {MAX_JOB_CHARACTERS} characters")


@dataclass(frozen=True, slots=True)
class Target:
    kind: str
    name: str


class Publisher:
    """The writing half of a store."""

    def __init__(self, storage: Storage, database: Database, around: Surroundings) -> None:
        self._storage = storage
        self._database = database
        self._around = around

    @contextmanager
    def writing(self) -> Iterator[tuple[Lease, Path]]:
        """Hold a lease, and a folder for files in the making, for the length of the block."""
        with self._database.write(lock=leases.LOCK) as connection:
            lease = leases.take(connection, now=self._around.clock())
        scratch = self._storage.scratch / lease.id
        try:
            with storage_errors("make a folder"):
                self._around.files.make_folders(scratch)
            yield lease, scratch
        finally:
            self._around.files.remove_tree(scratch)
            with self._database.write() as connection:
                leases.give_back(connection, lease.id)

    def put(self, source: Path, target: Target, made: Made) -> Reference:
        """Copy what changed of a folder since it was last stored."""
        with _no_collection():
            return self._put(source, target, made)

    def _put(self, source: Path, target: Target, made: Made) -> Reference:
        scanned_at = self._around.clock()
        files = scan(source, self._around.limits)
        refuse_executable(target.kind, files)
        with self.writing() as (lease, scratch), _scratch_kept(scratch):
            recalled, packed = self._recall(source, target, files)
            known = intake.Known(recalled.digests, packed)
            taken = self._intake(scratch, move=False).run(files, known)
            stored = self._publish(target, taken, made)
            reference = self.commit(stored, target, lease=lease, job=made.job)
        if taken.read_bytes or recalled.artifact != stored.digest:
            with self._database.write() as connection:
                stat_cache.remember(
                    connection,
                    source,
                    artifact=stored.digest,
                    files=files,
                    entries=taken.entries,
                    scanned_at=scanned_at,
                )
        return reference

    def adopt(
        self, folder: Path, target: Target, made: Made, *, lease: Lease, scratch: Path
    ) -> Reference:
        """Take the files of a folder below `scratch`, without copying them."""
        with _scratch_kept(scratch):
            files = scan(folder, self._around.limits)
            refuse_executable(target.kind, files)
            taken = self._intake(scratch, move=True).run(files, intake.Known())
            stored = self._publish(target, taken, made)
        return self.commit(stored, target, lease=lease, job=made.job)

    def take(self, source: Path, target: Target, made: Made, *, scratch: Path) -> Stored:
        """Copy a folder into the store without giving it a version; the lease keeps it there."""
        with _no_collection(), _scratch_kept(scratch):
            files = scan(source, self._around.limits)
            refuse_executable(target.kind, files)
            _, packed = self._recall(source, target, files)
            part = scratch / f"{target.kind}.{target.name}"
            with storage_errors("make a folder"):
                self._around.files.make_folders(part)
            taken = self._intake(part, move=False).run(files, intake.Known(packed=packed))
            return self._publish(target, taken, made)

    def commit(
        self, stored: Stored, target: Target, *, lease: Lease, job: str | None = None
    ) -> Reference:
        """Make an artifact whose bytes are in place the newest version of a name."""
        with self._database.write(lock=leases.LOCK) as connection:
            return self.enter(connection, stored, target=target, lease=lease, job=job)

    def enter(
        self,
        connection: Connection,
        stored: Stored,
        *,
        target: Target,
        lease: Lease,
        job: str | None = None,
    ) -> Reference:
        """Do what `commit` does within a transaction that holds the store's lock."""
        now = self._around.clock()
        if leases.condemned(connection) != lease.condemned:
            manifest_key = key_of("manifests", stored.digest)
            trash.restore(self._storage, [manifest_key, *contents.objects(stored)])
        contents.settle(self._storage, stored, files=self._around.files)
        _record(connection, stored, job=job, now=now)
        wanted = Reference(target.kind, target.name, stored.digest)
        return refs.add_version(connection, wanted, now=now, job=job)

    def _recall(
        self, source: Path, target: Target, files: Sequence[SourceFile]
    ) -> tuple[stat_cache.Recalled, Mapping[str, str]]:
        with self._database.read() as connection:
            recalled = stat_cache.recall(connection, source, files)
            newest = refs.newest(connection, target.kind, target.name, now=self._around.clock())
        bases = {recalled.artifact, newest.digest if newest else None} - {None}
        packs: set[str] = set()
        for digest in bases:
            try:
                packs.update(contents.packs_of(self._storage, str(digest)))
            except (NotFound, StorageFailed):
                continue  # collected or damaged: its files are stored anew
        return recalled, intake.packed_by(self._storage, packs)

    def _intake(self, scratch: Path, *, move: bool) -> intake.Intake:
        return intake.Intake(
            self._storage,
            scratch=scratch,
            files=self._around.files,
            workers=self._around.workers,
            move=move,
        )

    def _publish(self, target: Target, taken: intake.Taken, made: Made) -> Stored:
        manifest = build(
            target.kind,
            taken.entries,
            metadata=made.metadata,
            parents=self._parents(made.parents),
        )
        return contents.publish(
            self._storage, manifest, taken.packs, taken.new_packs, files=self._around.files
        )

    def _parents(self, wanted: Sequence[tuple[str, str]]) -> list[Parent]:
        now = self._around.clock()
        with self._database.read() as connection:
            return [
                Parent(refs.check_role(role), refs.look_up(connection, reference, now=now).digest)
                for role, reference in wanted
            ]


@contextmanager
def _scratch_kept(scratch: Path) -> Iterator[None]:
    """Say in words that the files in the making were taken away."""
    try:
        yield
    except (FileNotFoundError, NotFound) as error:
        if scratch.exists():
            raise
        raise StorageFailed(
            f"{str(scratch)!r} is gone: a collector took this writer for dead, as it does after "
            "24 hours, or earlier if its clock is ahead; put again"
        ) from error


@contextmanager
def _no_collection() -> Iterator[None]:
    """Spare the cycle collector walking over 100,000 files and entries: none is in a cycle."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _record(connection: Connection, stored: Stored, *, job: str | None, now: datetime) -> None:
    known = connection.execute(
        update(artifact).where(artifact.c.digest == stored.digest).values(collected_at=None)
    )
    if known.rowcount:
        return
    manifest = stored.manifest
    connection.execute(
        insert(artifact).values(
            digest=stored.digest,
            kind=manifest.kind,
            entries=len(manifest.entries),
            bytes=manifest.size,
            job=job,
            created_at=now,
        )
    )
    for parent in manifest.parents:
        connection.execute(
            insert(edge).values(child=stored.digest, role=parent.role, parent=parent.digest)
        )


def is_kept(connection: Connection, digest: str | None) -> bool:
    """Tell whether an artifact is there and was not collected."""
    condition = (artifact.c.digest == digest) & artifact.c.collected_at.is_(None)
    return connection.scalar(select(artifact.c.digest).where(condition)) is not None

"""The artifact store: put, find, check out, tag, compare, verify, collect and sync file trees."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from sqlalchemy import Connection

from infra.artifacts import aliases, contents, leases, lineage, refs
from infra.artifacts.aliases import Guard, Move, Pointer
from infra.artifacts.bucket import connect
from infra.artifacts.checkout import Checkout, Mode
from infra.artifacts.folder import Folder
from infra.artifacts.formats import MODEL_KINDS
from infra.artifacts.gc import Collected, Collector, Policy
from infra.artifacts.lineage import Difference, Lineage
from infra.artifacts.manifest import Manifest, Stored
from infra.artifacts.publishing import Made, Publisher, Surroundings, Target, is_kept
from infra.artifacts.refs import Reference, Version
from infra.artifacts.storage import Storage
from infra.artifacts.sync import Transfer, Transferred
from infra.artifacts.verify import Report, Sample, repair, verify
from infra.database.engine import Database
from infra.errors import Conflict, NotFound

ANY = Guard()
_REPAIR_ROUNDS = 3
"""A damaged index hides damaged members, and a damaged manifest both."""


@dataclass(slots=True)
class Draft:
    """An artifact being written."""

    folder: Path
    """Write the files here, and close them."""
    metadata: dict[str, Any]
    reference: Reference | None = None
    """What it became, once the block has ended."""


@dataclass(frozen=True, slots=True)
class Staged:
    """Artifacts whose bytes are in place and whose versions are not made yet."""

    publisher: Publisher
    lease: leases.Lease
    targets: Mapping[str, Target]
    stored: Mapping[str, Stored]
    """By name."""
    jobs: Mapping[str, str | None]

    def enter(self, connection: Connection) -> dict[str, Reference]:
        """Make all of them versions, in a transaction begun with `lock=leases.LOCK`."""
        return {
            name: self.publisher.enter(
                connection, self.stored[name], target=target, lease=self.lease, job=self.jobs[name]
            )
            for name, target in self.targets.items()
        }


def open_store(location: str | Path, database: Database, **options: Any) -> ArtifactStore:
    """Open the store in a local folder or at an fsspec URL, whose `options` are fsspec's."""
    if isinstance(location, str) and "://" in location:
        return ArtifactStore(connect(location, **options), database)
    return ArtifactStore(Folder(Path(location)), database)


class ArtifactStore:
    """Immutable trees of files with versions, aliases and lineage; safe between processes.

    One store has one database, and that database no other store. A `reference` is text such as
    `dataset/faq@v3`, `model/churn@production` or `dataset/faq`; where it is malformed,
    `InvalidRequest` is raised, and `NotFound`, with near names, where it means nothing.
    """

    def __init__(
        self, storage: Storage, database: Database, surroundings: Surroundings | None = None
    ) -> None:
        self.storage = storage
        self.database = database
        self._around = surroundings or Surroundings()
        self._publisher = Publisher(storage, database, self._around)
        contents.initialise(storage, self._around.files)

    def put(self, source: Path, name: str, made: Made | None = None) -> Reference:
        """Store a folder, or one file, as the next version of `kind/name`.

        What is the newest version already gets no new number.

        Raises:
            InvalidRequest: a name is malformed, or a file must not be in an artifact.
            NotFound: the source or a parent does not exist.
            TooLarge: it exceeds a limit.
            Conflict: a file changed while it was stored.
            StorageFailed: the disk is full or does not do its part; nothing is half visible.
        """
        target = Target(*refs.split(name))
        return self._publisher.put(source, target, made or Made())

    @contextmanager
    def writer(self, name: str, made: Made | None = None) -> Iterator[Draft]:
        """Give a folder to write to, and store it when the block ends without an error.

        The files are taken, not copied. Raises as `put` does, at the end of the block.
        """
        target = Target(*refs.split(name))
        made = made or Made()
        with self._publisher.writing() as (lease, scratch):
            draft = Draft(scratch / "draft", dict(made.metadata))
            draft.folder.mkdir()
            yield draft
            draft.reference = self._publisher.adopt(
                draft.folder,
                target,
                replace(made, metadata=draft.metadata),
                lease=lease,
                scratch=scratch,
            )

    @contextmanager
    def staged(
        self, sources: Mapping[str, Path], made: Mapping[str, Made] | None = None
    ) -> Iterator[Staged]:
        """Store folders, by the names they will have, without making them versions yet.

        Whoever writes something else in the same transaction calls `enter` of what is yielded,
        within the block; what is not entered is garbage. Raises as `put` does.
        """
        origins = {name: (made or {}).get(name, Made()) for name in sources}
        targets = {name: Target(*refs.split(name)) for name in sources}
        with self._publisher.writing() as (lease, scratch):
            stored = {
                name: self._publisher.take(sources[name], target, origins[name], scratch=scratch)
                for name, target in targets.items()
            }
            jobs = {name: origin.job for name, origin in origins.items()}
            yield Staged(self._publisher, lease, targets, stored, jobs)

    def find(self, reference: str) -> Reference:
        """Return what a reference means now."""
        with self.database.read() as connection:
            return refs.look_up(connection, reference, now=self._around.clock())

    def resolve(self, reference: str) -> Manifest:
        """Return the files, metadata and parents of an artifact."""
        return contents.load(self.storage, self.find(reference).digest).manifest

    def names(self, kind: str | None = None) -> list[Reference]:
        """Return the newest version of every name."""
        with self.database.read() as connection:
            return refs.names(connection, kind=kind, now=self._around.clock())

    def versions(self, name: str) -> list[Version]:
        """Return the versions of `kind/name`, newest first."""
        with self.database.read() as connection:
            return refs.versions(connection, *refs.split(name), now=self._around.clock())

    @contextmanager
    def reading(self, reference: str) -> Iterator[Reference]:
        """Keep an artifact from being collected for the length of the block."""
        now = self._around.clock()
        with self.database.write(lock=leases.LOCK) as connection:
            found = refs.look_up(connection, reference, now=now)
            lease = leases.take(connection, now=now, digest=found.digest)
        try:
            yield found
        finally:
            with self.database.write() as connection:
                leases.give_back(connection, lease.id)

    def checkout(
        self,
        reference: str,
        destination: Path,
        *,
        mode: Mode = "hardlink",
        verify: bool | None = None,
    ) -> Path:
        """Lay the files out in a folder that does not exist or is empty; all of them or none.

        `mode` as in `Checkout`; `verify` hashes every file first, by default of models only.

        Raises:
            Conflict: something is at the destination.
            StorageFailed: the disk is full, or a file is missing or damaged.
        """
        with self.reading(reference) as found:
            work = Checkout(
                self.storage,
                self._around.files,
                mode,
                found.kind in MODEL_KINDS if verify is None else verify,
                self._around.workers,
            )
            return work.run(contents.load(self.storage, found.digest), destination)

    def open(self, reference: str, path: str) -> BinaryIO:
        """Return a seekable reader over one file, which fetches what it is asked for.

        Use `reading` around it where the artifact could lose its last name meanwhile.
        """
        stored = contents.load(self.storage, self.find(reference).digest)
        entry = stored.manifest.entry(path)
        if entry is None:
            raise NotFound("file", path, among=(entry.path for entry in stored.manifest.entries))
        return contents.reader(self.storage, contents.places(self.storage, stored)(entry))

    def tag(
        self,
        reference: str,
        alias: str,
        *,
        guard: Guard = ANY,
        actor: str | None = None,
    ) -> Move:
        """Point an alias of the reference's name at what the reference means.

        Raises:
            Conflict: the guard does not hold; nothing moved.
        """
        now = self._around.clock()
        with self.database.write(lock=leases.LOCK) as connection:
            found = refs.look_up(connection, reference, now=now)
            pointer = Pointer.of(f"{found.kind}/{found.name}", alias)
            return aliases.move(
                connection, pointer, to=found.digest, guard=guard, now=now, actor=actor
            )

    def hand_over(
        self,
        reference: str,
        alias: str,
        *,
        apart: str,
        guard: Guard = ANY,
        actor: str | None = None,
    ) -> None:
        """Do as `tag` does, and take the alias `apart` away: both or neither.

        Raises:
            Conflict: the guard does not hold; nothing moved.
        """
        how: dict[str, Any] = {"now": self._around.clock(), "actor": actor}
        with self.database.write(lock=leases.LOCK) as connection:
            found = refs.look_up(connection, reference, now=how["now"])
            name = f"{found.kind}/{found.name}"
            aliases.move(connection, Pointer.of(name, alias), to=found.digest, guard=guard, **how)
            aliases.move(connection, Pointer.of(name, apart), to=None, guard=ANY, **how)

    def untag(self, name: str, alias: str, *, guard: Guard = ANY, actor: str | None = None) -> Move:
        """Remove an alias; its history stays. Raises `Conflict` as `tag` does."""
        with self.database.write(lock=leases.LOCK) as connection:
            return aliases.move(
                connection,
                Pointer.of(name, alias),
                to=None,
                guard=guard,
                now=self._around.clock(),
                actor=actor,
            )

    def roll_back(
        self, name: str, alias: str, *, guard: Guard = ANY, actor: str | None = None
    ) -> Move:
        """Point an alias back at what it pointed at before.

        Raises:
            Conflict: there is nothing before, it was collected, or the guard does not hold.
        """
        pointer = Pointer.of(name, alias)
        with self.database.write(lock=leases.LOCK) as connection:
            done = aliases.roll_back(
                connection, pointer, guard=guard, now=self._around.clock(), actor=actor
            )
            if not is_kept(connection, done.after):
                raise Conflict(f"What {str(pointer)!r} pointed at before was collected")
            return done

    def history(self, name: str, alias: str) -> list[Move]:
        """Return the moves of an alias, newest first."""
        with self.database.read() as connection:
            return aliases.history(connection, Pointer.of(name, alias))

    def targets(self, kind: str) -> dict[tuple[str, str], str]:
        """Return the digest of every alias of a kind, by name and alias, in one look."""
        with self.database.read() as connection:
            return aliases.targets(connection, kind)

    def expire(self, reference: str, at: datetime | None = None) -> None:
        """Say from when on a version keeps its content alive no longer; now by default."""
        now = self._around.clock()
        with self.database.write(lock=leases.LOCK) as connection:
            found = refs.look_up(connection, reference, now=now)
            if found.version is None:
                raise NotFound("living version", reference)
            refs.expire(connection, found, at=at or now)

    def lineage(self, reference: str, *, up: bool = True, depth: int = 10) -> Lineage:
        """Return what an artifact was made from or, with `up=False`, what was made from it."""
        digest = self.find(reference).digest
        with self.database.read() as connection:
            return lineage.trace(connection, digest, up=up, depth=depth)

    def diff(self, before: str, after: str) -> Difference:
        """Return what changed between two artifacts, file by file."""
        return lineage.compare(self.resolve(before), self.resolve(after))

    def verify(self, reference: str, sample: Sample | None = None) -> Report:
        """Read an artifact's files again, all or a sample, and report what is not as it was."""
        with self.reading(reference) as found:
            return verify(
                self.storage, found.digest, sample=sample or Sample(), workers=self._around.workers
            )

    def repair(self, reference: str, mirror: Storage) -> Report:
        """Mend what `verify` finds with the bytes of another store; return what is still wrong.

        Raises:
            StorageFailed: what the mirror has is damaged too.
        """
        with self.reading(reference) as found, self._publisher.writing() as (_, scratch):
            for _ in range(_REPAIR_ROUNDS):
                report = verify(
                    self.storage, found.digest, sample=Sample(), workers=self._around.workers
                )
                if report.sound:
                    break
                repair(self._transfer(mirror, scratch), report)
        return report

    def gc(
        self, policy: Policy | None = None, *, roots: Callable[[], Iterable[str]] = tuple
    ) -> Collected:
        """Collect what no version, alias or lease keeps, nor is among the digests of `roots`."""
        return Collector(
            self.storage,
            self.database,
            clock=self._around.clock,
            policy=policy or Policy(),
            roots=roots,
        ).run()

    def sync(self, reference: str, remote: ArtifactStore) -> Transferred:
        """Bring an artifact to another store, as the newest version of the same name there.

        Only objects that are missing there travel. To fetch, call it on the other store.
        """
        with self.reading(reference) as found, remote._publisher.writing() as (lease, scratch):
            arrived = remote._transfer(self.storage, scratch).artifact(found.digest)
            remote._publisher.commit(arrived.stored, Target(found.kind, found.name), lease=lease)
        return arrived.moved

    def _transfer(self, source: Storage, scratch: Path) -> Transfer:
        return Transfer(source, self.storage, scratch, self._around.files, self._around.workers)

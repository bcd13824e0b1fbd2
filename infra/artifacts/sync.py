"""Copies artifacts between two stores of any kind: only what is missing, checked on arrival."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from infra.artifacts.contents import load, missing, objects
from infra.artifacts.files import BUFFER_BYTES, Files, Writer, storage_errors
from infra.artifacts.folder import Folder
from infra.artifacts.manifest import Stored, decode
from infra.artifacts.packs import read_index
from infra.artifacts.storage import Storage, digest_of, key_of
from infra.errors import NotFound, StorageFailed


@dataclass(frozen=True, slots=True)
class Transferred:
    """What had to travel."""

    objects: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Arrived:
    """An artifact whose bytes are all in the target; its version is not made yet."""

    stored: Stored
    moved: Transferred


@dataclass(frozen=True, slots=True)
class Transfer:
    """From one storage to another.

    Args:
        scratch: a folder of this run's own below the target's scratch folder.
    """

    source: Storage
    target: Storage
    scratch: Path
    files: Files
    workers: int = 1

    def artifact(self, digest: str) -> Arrived:
        """Bring one artifact over; its manifest comes last, so that it is never there in part.

        A manifest that is there stays, also if it names packs that are not: whoever makes the
        version looks again, and holds the lock for it.

        Raises:
            NotFound: the source has no such artifact.
            StorageFailed: an object of the source is missing or damaged.
        """
        stored = load(self.source, digest)
        if there := self._whole(digest):
            return Arrived(there, Transferred())
        moved = self.objects(missing(self.target, objects(stored)))
        self.target.flush()
        key = key_of("manifests", digest)
        if problem := damage(self.target, key):
            size = self.one(key, replace=problem == "damaged")
            moved = Transferred(moved.objects + 1, moved.bytes + size)
        self.target.flush()
        return Arrived(stored, moved)

    def objects(self, keys: Iterable[str], *, replace: bool = False) -> Transferred:
        """Bring objects over, in the place of those that are there with `replace`."""
        with ThreadPoolExecutor(self.workers) as pool:
            sizes = list(pool.map(lambda key: self.one(key, replace=replace), keys))
        return Transferred(len(sizes), sum(sizes))

    def one(self, key: str, *, replace: bool = False) -> int:
        """Bring one object over and return its bytes."""
        arrived = Folder(self.scratch, self.files)
        temporary = self.scratch / key
        try:
            with storage_errors("fetch an object"):
                self.files.make_folders(temporary.parent)
                size = self._fetch(key, temporary)
        except FileNotFoundError as error:
            raise NotFound("object", key) from error
        if problem := damage(arrived, key):
            self.files.remove(temporary)
            raise StorageFailed(f"{key!r} arrived {problem}; verify the store it came from")
        put = self.target.replace if replace else self.target.publish
        put(key, temporary)
        return size

    def _fetch(self, key: str, temporary: Path) -> int:
        with self.source.open(key) as reader, Writer(temporary, files=self.files) as writer:
            while data := reader.read(BUFFER_BYTES):
                writer.append(data)
            writer.finish()
        return writer.size

    def _whole(self, digest: str) -> Stored | None:
        try:
            there = load(self.target, digest)
        except (NotFound, StorageFailed):
            return None
        return None if next(missing(self.target, objects(there)), None) else there


def damage(storage: Storage, key: str) -> str | None:
    """Return in a word what is wrong with an object, `None` if its bytes are what its name says."""
    digest = digest_of(key) or ""
    room = key.partition("/")[0]
    try:
        if room == "manifests":
            decode(digest, storage.read(key))
            return None
        with storage.open(key) as reader:
            if room == "blobs":
                found = hashlib.file_digest(reader, "sha256").hexdigest()
                return None if f"sha256:{found}" == digest else "damaged"
            for member, (start, size) in sorted(
                read_index(storage, digest).items(), key=lambda item: item[1]
            ):
                reader.seek(start)
                if hashlib.sha256(reader.read(size)).digest() != member:
                    return "damaged"
    except (FileNotFoundError, NotFound):
        return "missing"
    except StorageFailed:
        return "damaged"
    return None

"""Lays an artifact's files out in a folder: linked, cloned or copied, all of them or none."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, assert_never

from infra.artifacts.contents import places
from infra.artifacts.files import BUFFER_BYTES, Files, Writer, storage_errors
from infra.artifacts.manifest import Entry, Stored
from infra.artifacts.packs import PACKED_BELOW, Place
from infra.artifacts.storage import Storage
from infra.errors import Conflict, StorageFailed
from infra.security import new_id

Mode = Literal["hardlink", "reflink", "copy"]

_CLONE = 0x4004_9409  # ioctl FICLONE
_TAKEN = {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}
"""What renaming a folder answers when something else came to be there first."""
_NOT_HERE = {errno.EXDEV, errno.EMLINK, errno.EPERM, errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL}
"""What a file system answers that cannot link or clone; the file is copied instead."""


@dataclass(frozen=True, slots=True)
class Checkout:
    """How to lay files out.

    With `hardlink`, files of 256 KiB and more are read-only links into the store: they cost no
    room, and must not be edited in place. Smaller ones and programs are copies.
    """

    storage: Storage
    files: Files
    mode: Mode = "hardlink"
    verify: bool = False
    """Hash every file on the way, and refuse what does not match."""
    workers: int = 1

    def run(self, stored: Stored, destination: Path) -> Path:
        """Create `destination`, which must not exist or be an empty folder.

        Raises:
            Conflict: something is there.
            StorageFailed: the disk is full, or a file is missing or damaged.
        """
        if destination.is_symlink() or (
            destination.exists() and not (destination.is_dir() and not any(destination.iterdir()))
        ):
            raise Conflict(f"{str(destination)!r} is in the way; remove it or choose another place")
        partial = destination.parent / f".{destination.name}.{new_id('partial-')}"
        with storage_errors("check out"):
            self.files.make_folders(partial)
            try:
                self._fill(stored, partial)
                self._put_in_place(partial, destination)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
        return destination

    def _put_in_place(self, partial: Path, destination: Path) -> None:
        try:
            self.files.replace(partial, destination)
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
            raise Conflict(
                f"{str(destination)!r} was put there meanwhile; remove it or choose another place"
            ) from error

    def _fill(self, stored: Stored, folder: Path) -> None:
        entries = stored.manifest.entries
        for parent in _folders(entries):
            self.files.mkdir(folder / parent)
        place = places(self.storage, stored)
        root = str(folder)
        small = [entry for entry in entries if entry.size < PACKED_BELOW]
        large = iter([entry for entry in entries if entry.size >= PACKED_BELOW])
        tasks: list[Callable[[], None]] = [lambda: self._unpack(small, place, root)]
        tasks += [lambda: self._lay(large, place, root)] * self.workers
        if self.workers == 1:
            for task in tasks:
                task()
            return
        with ThreadPoolExecutor(self.workers + 1) as pool:
            for future in [pool.submit(task) for task in tasks]:
                future.result()

    def _unpack(self, entries: Iterable[Entry], place: Callable[[Entry], Place], root: str) -> None:
        placed = sorted(
            ((place(entry), entry) for entry in entries),
            key=lambda pair: (pair[0].key, pair[0].start),
        )
        key, reader = "", None
        try:
            for where, entry in placed:
                if where.key != key or reader is None:
                    if reader is not None:
                        reader.close()
                    key, reader = where.key, self.storage.open(where.key)
                reader.seek(where.start)
                data = reader.read(entry.size)
                self._check(entry, hashlib.sha256(data).hexdigest() if self.verify else None)
                self._write(data, f"{root}/{entry.path}", entry)
        except FileNotFoundError as error:
            raise StorageFailed(f"{key!r} is missing; repair the artifact from a mirror") from error
        finally:
            if reader is not None:
                reader.close()

    def _write(self, data: bytes, path: str, entry: Entry) -> None:
        if len(data) != entry.size:
            raise StorageFailed(f"{entry.path!r} is cut short; repair the artifact from a mirror")
        descriptor = self.files.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, entry.mode)
        try:
            view = memoryview(data)
            while view:
                view = view[self.files.write(descriptor, view) :]
        finally:
            self.files.close(descriptor)

    def _lay(self, entries: Iterator[Entry], place: Callable[[Entry], Place], root: str) -> None:
        for entry in entries:
            key = place(entry).key
            target = Path(f"{root}/{entry.path}")
            try:
                if not self._share(key, entry, target):
                    self._copy(key, entry, target)
            except FileNotFoundError as error:
                raise StorageFailed(
                    f"{entry.path!r} is missing from the store; repair the artifact from a mirror"
                ) from error

    def _share(self, key: str, entry: Entry, target: Path) -> bool:
        source = self.storage.path(key)
        if (
            source is None
            or self.mode == "copy"
            or (
                self.mode == "hardlink" and entry.mode != 0o644  # a link shares the blob's mode
            )
        ):
            return False
        if self.verify:
            self._check(entry, _hash(source))
        elif os.stat(source).st_size != entry.size:
            self._check(entry, "")
        try:
            match self.mode:
                case "hardlink":
                    self.files.link(source, target)
                case "reflink":
                    _clone(source, target, entry, files=self.files)
                case _:
                    assert_never(self.mode)
        except OSError as error:
            if error.errno not in _NOT_HERE:
                raise
            return False
        return True

    def _copy(self, key: str, entry: Entry, target: Path) -> None:
        hasher = hashlib.sha256()
        with self.storage.open(key) as source, Writer(target, files=self.files) as writer:
            while data := source.read(BUFFER_BYTES):
                hasher.update(data)
                writer.append(data)
            self._check(entry, hasher.hexdigest())
            writer.finish(mode=entry.mode, durable=False)

    def _check(self, entry: Entry, found: str | None) -> None:
        if found is not None and f"sha256:{found}" != entry.digest:
            raise StorageFailed(
                f"{entry.path!r} does not match its digest {entry.digest!r}: damaged, or edited in "
                "place through a linked checkout; verify the artifact and repair it from a mirror"
            )


def _folders(entries: Sequence[Entry]) -> list[str]:
    found: set[str] = set()
    for entry in entries:
        parent = entry.path.rpartition("/")[0]
        while parent and parent not in found:
            found.add(parent)
            parent = parent.rpartition("/")[0]
    return sorted(found)


def _hash(path: Path) -> str:
    with open(path, "rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _clone(source: Path, target: Path, entry: Entry, *, files: Files) -> None:
    descriptor = files.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, entry.mode)
    try:
        with open(source, "rb") as file:
            fcntl.ioctl(descriptor, _CLONE, file.fileno())
    except OSError:
        with suppress(FileNotFoundError):
            files.unlink(target)
        raise
    finally:
        files.close(descriptor)

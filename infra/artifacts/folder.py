"""A store's objects in a local folder, linked into place: a name never shows half a file."""

from __future__ import annotations

import errno
import hashlib
import io
import mmap
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import cast

from infra.artifacts.files import BUFFER_BYTES, READ_ONLY, Files, Writer, storage_errors
from infra.artifacts.storage import Item, key_of
from infra.security import new_id


class Folder:
    """The `Storage` of a local disk; safe between threads and between processes."""

    def __init__(self, root: Path, files: Files | None = None) -> None:
        self.root = root
        self._files = files or Files()
        self._known: set[str] = set()
        self._unsynced: set[str] = set()
        self._lock = threading.Lock()
        self._local = threading.local()

    @property
    def scratch(self) -> Path:
        return self.root / "tmp"

    def add(self, source: Path, scratch: Path, *, move: bool = False) -> tuple[str, int]:
        with storage_errors("store a file"):
            # A file with other names could still be edited under one of them.
            move = move and os.stat(source).st_nlink == 1
            temporary = source if move else scratch / new_id("blob-")
            copy = self._seal if move else self._copy
            digest, size = copy(source, temporary)
            self.publish(key_of("blobs", digest), temporary)
        return digest, size

    def publish(self, key: str, finished: Path) -> bool:
        with storage_errors("store an object"):
            target = self._prepare(key)
            while not self._link(finished, target):
                with suppress(FileNotFoundError):  # collected since: the name is free again
                    if os.stat(target).st_size == os.stat(finished).st_size:
                        self._files.unlink(finished)
                        return False
                    self._files.replace(finished, target)  # a damaged object heals
                    return True
        return True

    def replace(self, key: str, finished: Path) -> None:
        with storage_errors("replace an object"):
            self._files.replace(finished, self._prepare(key))
        self.flush()

    def flush(self) -> None:
        with self._lock:
            folders, self._unsynced = self._unsynced, set()
        with storage_errors("make names durable"):
            for folder in sorted(folders):
                self._files.sync_folder(folder)

    def size(self, key: str) -> int | None:
        try:
            return os.stat(self.root / key).st_size
        except FileNotFoundError:
            return None

    def read(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        with storage_errors("read an object"), open(self.root / key, "rb", buffering=0) as file:
            if start or end is not None:
                size = os.fstat(file.fileno()).st_size
                start = max(0, size + start) if start < 0 else start
                length = (size if end is None else min(end, size)) - start
                return os.pread(file.fileno(), max(0, length), start)
            return file.readall()

    def open(self, key: str) -> io.BufferedReader:
        return io.BufferedReader(io.FileIO(self.root / key), BUFFER_BYTES)

    def path(self, key: str) -> Path:
        return self.root / key

    def list(self, prefix: str) -> Iterator[Item]:
        pending = [self.root / prefix]
        while pending:
            folder = pending.pop()
            try:
                entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
            except FileNotFoundError:
                continue
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(Path(entry.path))
                    continue
                with suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    key = Path(entry.path).relative_to(self.root).as_posix()
                    yield Item(key, status.st_size, status.st_mtime)

    def move(self, key: str, to: str) -> bool:
        with storage_errors("move an object"):
            try:
                self._files.replace(self.root / key, self._prepare(to))
            except FileNotFoundError:
                return False
            with self._lock:
                self._unsynced.add(str((self.root / key).parent))
        return True

    def delete(self, key: str) -> bool:
        with storage_errors("remove an object"):
            return self._files.remove(self.root / key)

    def _prepare(self, key: str) -> Path:
        target = self.root / key
        folder = str(target.parent)
        if folder not in self._known:
            self._files.make_folders(folder)
            self._known.add(folder)
        with self._lock:
            self._unsynced.add(folder)
        return target

    def _link(self, finished: Path, target: Path) -> bool:
        try:
            self._files.link(finished, target)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in {errno.EPERM, errno.EOPNOTSUPP}:
                raise
            self._files.replace(finished, target)  # a file system without hard links
        else:
            self._files.unlink(finished)
        return True

    def _copy(self, source: Path, temporary: Path) -> tuple[str, int]:
        hasher = hashlib.sha256()
        descriptor = self._files.open(source, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            with Writer(temporary, files=self._files, buffer=self._buffer()) as writer:
                while count := self._files.readv(descriptor, [space := writer.space()]):
                    hasher.update(space[:count])
                    writer.advance(count)
                writer.finish()
        finally:
            self._files.close(descriptor)
        return f"sha256:{hasher.hexdigest()}", writer.size

    def _seal(self, source: Path, _temporary: Path) -> tuple[str, int]:
        descriptor = self._files.open(source, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            digest, size = hash_descriptor(descriptor, self._files, self._buffer())
            self._files.fchmod(descriptor, READ_ONLY)
            self._files.fsync(descriptor)
        finally:
            self._files.close(descriptor)
        return digest, size

    def _buffer(self) -> mmap.mmap:
        if not hasattr(self._local, "buffer"):
            self._local.buffer = mmap.mmap(-1, BUFFER_BYTES)
        return cast(mmap.mmap, self._local.buffer)


def hash_descriptor(descriptor: int, files: Files, buffer: mmap.mmap) -> tuple[str, int]:
    """Return digest and size of what an open file holds from its current position."""
    hasher = hashlib.sha256()
    size = 0
    view = memoryview(buffer)
    while count := files.readv(descriptor, [view]):
        hasher.update(view[:count])
        size += count
    return f"sha256:{hasher.hexdigest()}", size

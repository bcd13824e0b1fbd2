"""The file-system calls of the store, as one collaborator, and durable writing with them."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from infra.errors import StorageFailed

BUFFER_BYTES = 1 << 20
BLOCK_BYTES = 4096
READ_ONLY = 0o444
_DIRECT = getattr(os, "O_DIRECT", 0)


class Files:
    """What is asked of the operating system; a test hands in one that fails or crashes.

    Only calls that change something, and reads of bytes, go through here: a crash between two
    questions is a crash before the next change.
    """

    open = staticmethod(os.open)
    close = staticmethod(os.close)
    readv = staticmethod(os.readv)
    read = staticmethod(os.read)
    write = staticmethod(os.write)
    fsync = staticmethod(os.fsync)
    ftruncate = staticmethod(os.ftruncate)
    fchmod = staticmethod(os.fchmod)
    link = staticmethod(os.link)
    replace = staticmethod(os.replace)
    unlink = staticmethod(os.unlink)
    rmdir = staticmethod(os.rmdir)
    mkdir = staticmethod(os.mkdir)

    def make_folders(self, folder: str | Path) -> None:
        """Create a folder and those above it, durably, where they are missing."""
        folder = str(folder)
        if os.path.isdir(folder):
            return
        parent = os.path.dirname(folder) or os.curdir
        self.make_folders(parent)
        with suppress(FileExistsError):
            self.mkdir(folder)
        self.sync_folder(parent)

    def sync_folder(self, folder: str | Path) -> None:
        """Make the names in a folder durable."""
        descriptor = self.open(folder, os.O_RDONLY)
        try:
            self.fsync(descriptor)
        finally:
            self.close(descriptor)

    def remove_tree(self, folder: str | Path) -> None:
        """Remove a folder with what is in it, as far as that goes; what stays is garbage."""
        shutil.rmtree(folder, ignore_errors=True)

    def remove(self, path: str | Path) -> bool:
        """Remove a file; true if it was there."""
        try:
            self.unlink(path)
        except FileNotFoundError:
            return False
        return True


class Writer:
    """Appends to a new file, past the page cache where the file system allows it.

    Filling it with bytes that are not read again can cost several times what the disk does.
    """

    def __init__(self, path: Path, *, files: Files, buffer: mmap.mmap | None = None) -> None:
        self.path = path
        self.size = 0
        self._files = files
        self._view = memoryview(buffer or mmap.mmap(-1, BUFFER_BYTES))
        self._used = 0
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        try:
            self._descriptor = files.open(path, flags | _DIRECT, 0o600)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            files.remove(path)
            self._descriptor = files.open(path, flags, 0o600)

    def space(self) -> memoryview:
        """The part of the buffer to fill next; never empty."""
        return self._view[self._used :]

    def advance(self, count: int) -> None:
        """Say that the first `count` bytes of `space()` were filled."""
        self._used += count
        self.size += count
        if self._used == len(self._view):
            self._drain()

    def append(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            count = min(len(view), len(self._view) - self._used)
            self._view[self._used : self._used + count] = view[:count]
            self.advance(count)
            view = view[count:]

    def finish(self, *, mode: int = READ_ONLY, durable: bool = True) -> None:
        """Write what is left, set the mode and, unless it can be made again, wait for the disk."""
        self._drain()
        self._files.ftruncate(self._descriptor, self.size)
        self._files.fchmod(self._descriptor, mode)
        if durable:
            self._files.fsync(self._descriptor)

    def close(self) -> None:
        self._files.close(self._descriptor)

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.close()
        if error is not None:
            self._files.remove(self.path)

    def _drain(self) -> None:
        # Direct writes come in whole blocks; `finish` cuts the padding off.
        padded = -(-self._used // BLOCK_BYTES) * BLOCK_BYTES
        view = self._view[:padded]
        while view:
            try:
                view = view[self._files.write(self._descriptor, view) :]
            except OSError as error:
                if error.errno != errno.EINVAL or not self._leave_direct():
                    raise
            if len(view) % BLOCK_BYTES:
                self._leave_direct()
        self._used = 0

    def _leave_direct(self) -> bool:
        flags = fcntl.fcntl(self._descriptor, fcntl.F_GETFL)
        fcntl.fcntl(self._descriptor, fcntl.F_SETFL, flags & ~_DIRECT)
        return bool(flags & _DIRECT)


_OUT_OF_OUR_HANDS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
    errno.EMFILE,
    errno.ENFILE,
    errno.EFBIG,
    errno.ESTALE,
}


@contextmanager
def storage_errors(doing: str, *, also: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Turn what the disk or the bucket refuses into `StorageFailed`; other errors pass."""
    try:
        yield
    except (FileNotFoundError, FileExistsError):
        raise
    except OSError as error:
        if error.errno in _OUT_OF_OUR_HANDS or also:
            raise StorageFailed(f"Cannot {doing}{_where(error)}: {_reason(error)}") from error
        raise
    except also as error:
        raise StorageFailed(f"Cannot {doing}: {error}") from error


def _where(error: OSError) -> str:
    return f" at {os.fspath(error.filename)!r}" if error.filename else ""


def _reason(error: OSError) -> Any:
    return error.strerror or error

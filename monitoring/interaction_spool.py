"""Records on disk that wait for a database that is down: bounded, synced, given back in order."""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

MOST_BYTES = 2**30
SEGMENT_BYTES = 8 * 2**20
"""After which another file is begun: files are given back, and removed, one by one."""
_ENDING = ".spool"
_SUM = 9
"""Bytes of a line's checksum, in hexadecimal, and the space after it."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A file of records that nobody else has in hand."""

    path: Path
    descriptor: int

    def records(self, most: int) -> Iterator[tuple[list[bytes], int]]:
        """Yield records in order, so many at most at once, and how many were damaged.

        The last line may be torn: whoever wrote it was killed before it was acknowledged.
        """
        batch: list[bytes] = []
        damaged = 0
        with os.fdopen(os.dup(self.descriptor), "rb") as file:
            file.seek(0)
            for line in file:
                if (record := _checked(line)) is not None:
                    batch.append(record)
                elif line.endswith(b"\n"):
                    damaged += 1
                if len(batch) >= most:
                    yield batch, damaged
                    batch, damaged = [], 0
        if batch or damaged:
            yield batch, damaged

    def remove(self) -> None:
        """Let go of it for good; its records are elsewhere now."""
        self.path.unlink(missing_ok=True)


class InteractionSpool:
    """Files in one folder that several processes may share; each writes to one of its own.

    A file is locked by whoever writes or reads it, so that one of a process that died is taken
    over by another, and none is read twice at once.
    """

    def __init__(
        self, folder: Path, *, most_bytes: int = MOST_BYTES, segment_bytes: int = SEGMENT_BYTES
    ) -> None:
        self._folder = folder
        self._most_bytes = most_bytes
        self._segment_bytes = segment_bytes
        self._current: tuple[Path, int] | None = None
        self._size = 0

    @property
    def held_bytes(self) -> int:
        """Of all records that wait on disk, those of other processes too."""
        total = 0
        for path in self.paths():
            with suppress(FileNotFoundError):
                total += path.stat().st_size
        return total

    def append(self, records: Sequence[bytes]) -> int:
        """Write records, none of which has a line's end; those that it took survive a power cut.

        Returns:
            How many of them there was room for, from the first on.

        Raises:
            OSError: the disk did not take them; nothing of them is kept.
        """
        lines = [b"%08x %b\n" % (zlib.crc32(each), each) for each in records]
        room = self._most_bytes - self.held_bytes
        sizes = itertools.accumulate(map(len, lines))
        taken = sum(1 for _ in itertools.takewhile(lambda size: size <= room, sizes))
        if not taken:
            return 0
        data = b"".join(lines[:taken])
        descriptor = self._open()
        try:
            _write(descriptor, data)
            os.fsync(descriptor)
        except OSError:
            try:
                os.ftruncate(descriptor, self._size)
            except OSError:
                self.close()  # no record may follow a torn line
            raise
        self._size += len(data)
        return taken

    def paths(self) -> list[Path]:
        """Return the files, that with the records that waited longest first."""
        return sorted(self._folder.glob(f"*{_ENDING}"))

    @contextmanager
    def taken(self, path: Path) -> Iterator[Segment | None]:
        """Take a file in hand; None where another process has it, or it is gone.

        One that this process writes to is ended by it.

        Raises:
            OSError: it cannot be opened.
        """
        if self._current is not None and self._current[0] == path:
            self.close()
        try:
            descriptor = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            yield None
            return
        try:
            is_ours = _lock(descriptor) and os.fstat(descriptor).st_nlink
            yield Segment(path, descriptor) if is_ours else None
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Let others read what this process wrote."""
        current, self._current = self._current, None
        if current is not None:
            os.close(current[1])

    def _open(self) -> int:
        if self._current is not None and self._size < self._segment_bytes:
            return self._current[1]
        self.close()
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path, descriptor = self._begin()
        self._current, self._size = (path, descriptor), 0
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return descriptor

    def _begin(self) -> tuple[Path, int]:
        """Make a file that is ours: nobody saw it, found it empty and removed it meanwhile."""
        while True:
            path = self._folder / f"{time.time_ns():020d}-{os.getpid()}{_ENDING}"
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
            if _lock(descriptor) and os.fstat(descriptor).st_nlink:
                return path, descriptor
            os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in {errno.EWOULDBLOCK, errno.EACCES}:
            return False
        raise
    return True


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _checked(line: bytes) -> bytes | None:
    record = line[_SUM:-1]
    if not line.endswith(b"\n") or line[: _SUM - 1] != b"%08x" % zlib.crc32(record):
        return None
    return record

"""What a process has spent since it last told the database: a file that outlives the process."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from infra.errors import StorageFailed
from service.gateway.counts import AccountId, Count, UsageId
from service.gateway.journal_files import lock_path

logger = logging.getLogger(__name__)

SEGMENT_BYTES = 16 * 2**20
ADDED_UP = 64
"""Calls that cost nothing, which are written down together."""
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(slots=True)
class Segment:
    """One file of a journal."""

    path: Path
    open: int = 0
    """Reservations in it that have not ended."""
    last: int = 0
    """The highest sequence that must be reported before it can go."""
    written: int = 0
    """The highest sequence when a line was last added to it."""
    is_refused: bool = False
    """An `fsync` of it has failed: what it says may not be on the disk, whatever a later one says.

    The kernel tells of a failure once, drops the pages or not, and calls them clean."""


class Journal:
    """Appends what is reserved and what becomes of it, a line each, to files of this process.

    A line that was written survives the death of the process, whatever kills it; what a power cut
    takes is settled by `heirs`. A file that the disk refused once is written to no more, and is
    doubtful until the database has what it says. The lock file is held as long as the
    process lives, so that an heir knows. Not for several threads at once.
    """

    def __init__(
        self, folder: Path, spender_id: str, *, segment_bytes: int = SEGMENT_BYTES
    ) -> None:
        self.folder = folder
        self.spender_id = spender_id
        self.sequence = 0
        self._segment_bytes = segment_bytes
        self._segments: list[Segment] = []
        self._unwritten: list[bytes] = []
        self._free: dict[UsageId, Count] = {}
        """What calls that cost nothing used, since it was last written."""
        self._free_calls = 0
        self._number = self._reported = 0
        self._file = -1
        self._size = 0
        self._is_dirty = False
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = _lock(folder, spender_id)
            self._begin_segment()
        except OSError as error:
            raise _not_noted(error) from error

    def reserve(self, accounts: tuple[AccountId, ...], amount: int, *, usage: UsageId) -> Entry:
        """Note that a call may cost up to `amount`.

        Raises:
            StorageFailed: it cannot be written, so the call must not be made.
        """
        if self._unwritten:
            self.flush()
        number = self.next_sequence()
        line = _line(["R", number, amount, accounts, usage])
        try:
            if self._size >= self._segment_bytes or self._segments[-1].is_refused:
                self._begin_segment()
            self._write(line)
        except OSError as error:
            raise _not_noted(error) from error
        segment = self._segments[-1]
        segment.open += 1
        segment.last = number
        return Entry(number, segment)

    def settle(
        self,
        entry: Entry | None,
        accounts: tuple[AccountId, ...],
        *,
        usage: UsageId,
        count: Count,
    ) -> None:
        """Note what a call cost; it never fails: what the disk does not take is kept and retried.

        Until it is written the reservation stands in the file, which errs on the safe side. Calls
        for which nothing was reserved, and that cost nothing, are added up before they are written.
        """
        if entry is None and not count.cost:
            known = self._free.get(usage)
            if known is None:
                known = self._free[usage] = Count()
            known.add(count)
            self._free_calls += 1
            return
        number = entry.number if entry else 0
        self._end(entry, self._settled(number, accounts, usage, count))

    def _settled(
        self, number: int, accounts: tuple[AccountId, ...], usage: UsageId, count: Count
    ) -> bytes:
        counted = (count.requests, count.prompt_tokens, count.completion_tokens, count.cost)
        return _line(["S", self.next_sequence(), number, accounts, usage, counted])

    def refund(self, entry: Entry) -> None:
        """Note that a call cost nothing and is not to be counted."""
        self._end(entry, _line(["F", self.next_sequence(), entry.number]))

    def next_sequence(self) -> int:
        self.sequence += 1
        return self.sequence

    def flush(self) -> None:
        """Write what could not be written before.

        Raises:
            StorageFailed: it still cannot.
        """
        for usage, count in self._free.items():
            self._unwritten.append(self._settled(0, (), usage, count))
            self._segments[-1].last = self.sequence
        self._free, self._free_calls = {}, 0
        try:
            if self._size >= self._segment_bytes:
                self._begin_segment()
            while self._unwritten:
                self._write(self._unwritten[0])
                del self._unwritten[0]
        except OSError as error:
            raise _not_noted(error) from error

    def retry(self) -> None:
        """Write what could not be written before, and what has been added up for long enough.

        Raises:
            StorageFailed: it still cannot.
        """
        if self._unwritten or self._free_calls >= ADDED_UP:
            self.flush()

    def duplicate(self) -> int | None:
        """Return another descriptor of the file if there is something to `fsync`, to be closed."""
        if not self._is_dirty:
            return None
        descriptor = os.dup(self._file)
        self._is_dirty = False
        return descriptor

    @property
    def is_doubtful(self) -> bool:
        """True while the database lacks something of a file that the disk refused."""
        return any(each.is_refused and each.written > self._reported for each in self._segments)

    def doubt(self) -> None:
        """Remember that an `fsync` failed, and go on in another file.

        Which of the files it was is not asked: all that there are now count as refused.
        """
        for segment in self._segments:
            segment.is_refused = True
        with suppress(OSError):  # the next reservation tries it again
            self._begin_segment()

    def trim(self, reported: int) -> None:
        """Remove the segments of which everything has ended and is reported, but the last.

        One that cannot be removed stays until the next time: what is reported counts once anyway.
        """
        self._reported = reported
        while len(self._segments) > 1:
            first = self._segments[0]
            if first.open or first.last > reported:
                return
            try:
                first.path.unlink(missing_ok=True)
            except OSError as error:
                logger.warning("a part of the journal cannot be removed: %s", error)
                return
            del self._segments[0]

    def close(self) -> None:
        """Let go of the files; an heir, or `remove`, sees to what they say."""
        with suppress(StorageFailed):
            self.flush()
        os.close(self._file)
        os.close(self._lock)

    def _end(self, entry: Entry | None, line: bytes) -> None:
        if self._unwritten:  # lines keep their order
            self._unwritten.append(line)
        else:
            try:
                self._write(line)
            except OSError:
                self._unwritten.append(line)
        if entry is not None:
            entry.segment.open -= 1
            entry.segment.last = self.sequence
        self._segments[-1].last = self.sequence

    def _write(self, line: bytes) -> None:
        written = os.write(self._file, line)
        if written != len(line):  # the disk is full: half a line must not stay
            os.ftruncate(self._file, self._size)
            raise _full()
        self._size += written
        self._segments[-1].written = self.sequence
        self._is_dirty = True

    def _begin_segment(self) -> None:
        path = self.folder / f"{self.spender_id}.{self._number + 1:06d}.journal"
        opened = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_APPEND, 0o600)
        header = _line(["H", 1, boot_id()])
        try:
            if os.write(opened, header) != len(header):
                raise _full()
            if self._segments and not self._segments[-1].is_refused:
                self._segments[-1].is_refused = True
                os.fsync(self._file)
                self._segments[-1].is_refused = False
        except OSError:
            os.close(opened)
            path.unlink()
            raise
        if self._file >= 0:
            os.close(self._file)
        self._number += 1
        self._file, self._size = opened, len(header)
        self._segments.append(Segment(path))


@dataclass(frozen=True, slots=True)
class Entry:
    """A reservation's place in the journal."""

    number: int
    segment: Segment


def boot_id() -> str:
    """Return what changes when the machine is started anew; empty where nothing tells."""
    try:
        return BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _line(record: list[Any]) -> bytes:
    content = orjson.dumps(record)
    return b"%08x %b\n" % (zlib.crc32(content), content)


def _lock(folder: Path, spender_id: str) -> int:
    """Take the lock before it has the name that heirs look for."""
    path = lock_path(folder, spender_id)
    new = path.with_suffix(".new")
    descriptor = os.open(new, os.O_CREAT | os.O_RDWR, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    new.rename(path)
    return descriptor


def _full() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _not_noted(error: OSError) -> StorageFailed:
    return StorageFailed(
        f"What calls cost cannot be noted: {error.strerror or error}; none is made until it can"
    )

"""The journal of a run: each finished trial is a line, so that a killed run loses none of them."""

from __future__ import annotations

import fcntl
import logging
import os
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import orjson

from infra.errors import Conflict

logger = logging.getLogger(__name__)

Key = tuple[str, int]
"""A case's id and the repeat."""
_DIGITS = 8
"""Of the checksum that begins a line."""


class Journal:
    """The finished trials of one plan, on disk; held by one process at a time.

    Lines reach the operating system at once, so they outlive a killed process; they are not synced
    to the disk one by one, since a run that loses its last second to a power cut repeats it. Each
    has a checksum: one that is cut short or damaged is a trial that is run again.
    """

    def __init__(self, path: Path, *, resume: bool) -> None:
        """Open it, and read what it holds, or with `resume=False` begin it anew.

        Raises:
            Conflict: another process runs the same.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file: BinaryIO = path.open("a+b", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise Conflict(
                "Another process runs the same suite on the same target now; wait for it"
            ) from None
        self.found: dict[Key, Mapping[str, Any]] = {}
        """What earlier runs of the plan finished; of a trial that is there twice, the later."""
        if resume:
            self._read()
        else:
            self._file.truncate(0)

    def add(self, key: Key, trial: Mapping[str, Any]) -> None:
        """Write a finished trial down, whole or not at all. Raises `OSError`."""
        row = orjson.dumps({"case": key[0], "repeat": key[1], "trial": trial}, default=str)
        line = memoryview(_checksum(row) + b" " + row + b"\n")
        start = self._file.seek(0, os.SEEK_END)
        try:
            while line:  # a disk that fills up, or a signal, ends a write before its end
                line = line[self._file.write(line) :]
        except OSError:
            with suppress(OSError):
                self._file.truncate(start)
            raise

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _read(self) -> None:
        self._file.seek(0)
        data = self._file.read()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):  # the line that a kill cut short
            os.ftruncate(self._file.fileno(), whole)
        damaged = 0
        # Not `splitlines`, for which a damaged byte could be the end of a line.
        for line in data[:whole].split(b"\n")[:-1]:
            row = line[_DIGITS + 1 :]
            if not line.startswith(_checksum(row) + b" "):
                damaged += 1
                continue
            found = orjson.loads(row)
            self.found[found["case"], found["repeat"]] = found["trial"]
        if damaged:
            logger.warning("%d damaged lines of %s: their cases run again", damaged, self.path)


def _checksum(row: bytes) -> bytes:
    return b"%08x" % zlib.crc32(row)

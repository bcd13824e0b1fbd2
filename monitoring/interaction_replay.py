"""Records that waited on disk, written to the database; what cannot be read is told once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from monitoring.interaction_rows import Row
from monitoring.interaction_spool import InteractionSpool, Segment

logger = logging.getLogger(__name__)

BATCH = 500
UNREADABLE = (AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What a record raises that is whole and no interaction."""
Write: TypeAlias = Callable[[Sequence[Row], Callable[[int], None]], None]
"""Writes rows, and says of how many it is done with: written, or refused for ever."""


class Replay:
    """Goes through the files of a spool, again and again, until the database has taken them."""

    def __init__(self, spool: InteractionSpool, *, count_lost: Callable[[], None]) -> None:
        """`count_lost` is told of each record that is damaged."""
        self._spool = spool
        self._count_lost = count_lost
        self._unread: dict[Path, str] = {}
        """Files that could not be read when they were last tried, and why."""
        self._done: dict[Path, tuple[int, int]] = {}
        """Of files that the database took a part of: how many records, and how many were lost."""

    def run(self, write: Write) -> OSError | None:
        """Write what waits on disk, oldest first.

        A file that cannot be read keeps no other from being written; returns why it could not.

        Raises:
            StorageFailed: the database does not take it.
        """
        unread = None
        paths = self._spool.paths()
        self._unread = {path: why for path, why in self._unread.items() if path in paths}
        self._done = {path: done for path, done in self._done.items() if path in paths}
        for path in paths:
            try:
                with self._spool.taken(path) as segment:
                    if segment is not None:
                        self._replay(segment, write)
            except OSError as error:
                unread = error
                if self._unread.get(path) != str(error):
                    self._unread[path] = str(error)
                    logger.warning("interactions wait on disk, unread: %s", error)
            else:
                self._unread.pop(path, None)
        return unread

    def _replay(self, segment: Segment, write: Write) -> None:
        path, seen, lost = segment.path, 0, 0

        def note(number: int) -> None:
            done, told = self._done.get(path, (0, 0))
            self._done[path] = done + number, told

        for records, damaged in segment.records(BATCH):
            rows = [_decoded(each) for each in records]
            lost += damaged + rows.count(None)
            self._tell_lost(path, lost)
            whole = [row for row in rows if row is not None]
            done = self._done.get(path, (0, 0))[0] - seen
            seen += len(whole)
            if left := whole[max(0, done) :]:
                write(left, note)
        segment.remove()  # its only other copy is in the database
        self._done.pop(path, None)

    def _tell_lost(self, path: Path, lost: int) -> None:
        done, told = self._done.get(path, (0, 0))
        for _ in range(lost - told):
            self._count_lost()
        if lost and not told:
            logger.error("records in %s were damaged, and are lost", path.name)
        self._done[path] = done, max(lost, told)


def _decoded(record: bytes) -> Row | None:
    try:
        return Row.decoded(record)
    except UNREADABLE:
        return None

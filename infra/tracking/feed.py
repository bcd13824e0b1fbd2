"""Brings points to the database: each run's buffer, and one thread that empties them all."""

from __future__ import annotations

import logging
import threading
import time

from infra.errors import StorageFailed
from infra.tracking.buffer import CAPACITY, Batch, Buffer
from infra.tracking.points import POINT
from infra.tracking.writing import Ending, Writer

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 0.5
HEARTBEAT_SECONDS = 5.0


class Feed:
    """One run's buffer and what writes it."""

    def __init__(self, run_id: str, writer: Writer, *, capacity: int = CAPACITY) -> None:
        self.run_id = run_id
        self.buffer = Buffer(capacity=capacity)
        self._writer = writer
        self._draining = threading.Lock()
        self._unwritten: Batch = {}
        self._dropped = 0
        self._seen_at = time.monotonic()
        self._is_gone = False

    def drain(self, ending: Ending | None = None) -> None:
        """Write what has come, or a heartbeat if it is time for one.

        Raises:
            StorageFailed: not now; nothing is lost, the next call tries again.
        """
        with self._draining:
            if self._unwritten:  # a batch that failed before comes first: points stay in order
                self._write(self._unwritten)
            self._write(self.buffer.take(), ending)

    def _write(self, batch: Batch, ending: Ending | None = None) -> None:
        self._unwritten = batch
        self._dropped += self.buffer.take_dropped()
        is_late = time.monotonic() - self._seen_at >= HEARTBEAT_SECONDS
        if not (batch or self._dropped or ending or is_late):
            return
        try:
            is_there = self._writer.write(batch, dropped=self._dropped, ending=ending)
        except StorageFailed:
            self.buffer.failed()
            raise
        if not is_there and not self._is_gone:
            logger.warning("run %s was deleted; what it logs is not kept", self.run_id)
        self._is_gone = not is_there
        self._unwritten, self._dropped = {}, 0
        self._seen_at = time.monotonic()
        self.buffer.written(sum(map(len, batch.values())) // POINT.itemsize)


class Flusher:
    """Empties the buffers of this process's runs in the background, while there are any."""

    def __init__(self, *, every_seconds: float = FLUSH_SECONDS) -> None:
        self._every_seconds = every_seconds
        self._feeds: dict[int, Feed] = {}
        self._lock = threading.Lock()
        self._wanted = threading.Event()
        self._thread: threading.Thread | None = None
        self._is_failing = False

    def add(self, feed: Feed) -> None:
        with self._lock:
            self._feeds[id(feed)] = feed
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
                self._thread.start()

    def remove(self, feed: Feed) -> None:
        with self._lock:
            self._feeds.pop(id(feed), None)
        self._wanted.set()

    def wake(self) -> None:
        """Empty the buffers now rather than in a while."""
        self._wanted.set()

    def _work(self) -> None:
        while feeds := self._living():
            for feed in feeds:
                self._drain(feed)
            self._wanted.wait(self._every_seconds)
            self._wanted.clear()

    def _living(self) -> list[Feed]:
        with self._lock:
            if not self._feeds:
                self._thread = None  # the next run starts another
            return list(self._feeds.values())

    def _drain(self, feed: Feed) -> None:
        try:
            feed.drain()
        except StorageFailed as error:
            if not self._is_failing:
                logger.warning("metrics wait to be written: %s", error.message)
            self._is_failing = True
        except BaseException:
            feed.buffer.failed()  # whoever waits for room would wait for ever
            raise
        else:
            self._is_failing = False

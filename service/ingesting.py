"""Reads attached files in the background, in order of arrival, and takes up after a restart."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import Literal, Protocol

from infra.errors import NotFound, RagstoneError, StorageFailed
from retrieval.collections import Collection, Collections
from retrieval.documents import Documents
from retrieval.ingest import Ingester

logger = logging.getLogger(__name__)

RETRY_SECONDS = 5.0


class CountDocument(Protocol):
    def __call__(
        self, outcome: Literal["completed", "failed", "removed"], *, chunks: int = 0
    ) -> None: ...


def _count_nothing(outcome: str, *, chunks: int = 0) -> None:
    del outcome, chunks


class Background:
    """One thread that ingests what was attached; the database remembers what is still to do."""

    def __init__(
        self,
        collections: Collections,
        documents: Documents,
        *,
        ingester: Callable[[], Ingester],
        count: CountDocument = _count_nothing,
    ) -> None:
        self._collections = collections
        self._documents = documents
        self._ingester = ingester
        self._count = count
        self._waiting: queue.Queue[tuple[str, str] | None] = queue.Queue()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ingest", daemon=True)

    def start(self) -> None:
        """Take up what was accepted before, then wait for more."""
        for entry in self._documents.pending():
            self._waiting.put(entry)
        self._thread.start()

    def submit(self, collection_id: str, file_id: str) -> None:
        """Have an attached file read; both are public ids."""
        self._waiting.put((collection_id, file_id))

    def waiting(self) -> int:
        """How many files this process has yet to read."""
        return self._waiting.qsize()

    def stop(self, *, timeout_seconds: float = 30.0) -> None:
        """Finish the file at hand; the rest is taken up at the next start."""
        self._stopping.set()
        self._waiting.put(None)
        if self._thread.is_alive():
            self._thread.join(timeout_seconds)

    def _run(self) -> None:
        while not self._stopping.is_set():
            entry = self._waiting.get()
            if entry is None:
                return
            try:
                self._process(*entry)
            except StorageFailed as error:
                logger.error("ingest waits for storage: %s", error)
                self._stopping.wait(RETRY_SECONDS)
                self._waiting.put(entry)

    def _process(self, collection_id: str, file_id: str) -> None:
        try:
            collection = self._collections.get(collection_id)
            if self._documents.get(collection, file_id).status != "in_progress":
                return  # cancelled, or read by another process meanwhile
            committed = self._ingester().process(collection, file_id)
            if committed is not None:
                self._count("completed", chunks=committed.chunks)
            else:
                self._count(self._outcome(collection, file_id))
        except NotFound:
            self._count("removed")
            logger.info("%s was removed before it was read", file_id)
        except StorageFailed:
            raise
        except (RagstoneError, ValueError, OSError, RuntimeError) as error:
            # Whatever goes wrong with one file must not stop the files behind it.
            self._count("failed")
            logger.exception("ingest of %s failed", file_id)
            self._documents.fail(
                collection, file_id, code="server_error", message=f"{type(error).__name__}: {error}"
            )

    def _outcome(self, collection: Collection, file_id: str) -> Literal["failed", "removed"]:
        try:
            self._documents.get(collection, file_id)
        except NotFound:
            return "removed"
        return "failed"

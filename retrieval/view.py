"""A view: an index that follows a build's change log, and the metadata its filters need."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, select

from infra.database.engine import Database
from infra.database.schema import change, chunk, document, file
from infra.errors import NotReady, StorageFailed
from retrieval.collections import Collection
from retrieval.filters import Filter, matches
from retrieval.indexes import Change, SearchIndex, open_index, remove_index

logger = logging.getLogger(__name__)

BATCH_CHANGES = 5_000
"""Applied at once: large enough to rebuild fast, small enough to bound memory (about 10 MB)."""
CHECKPOINT_CHANGES = 1_000
"""Replaying fewer at the next start takes less than a second; a checkpoint is not worth it."""


@dataclass(frozen=True, slots=True)
class _Attributes:
    """Metadata of all documents, as of a point in the change log."""

    sequence: int
    by_document: dict[int, dict[str, Any]]


class View:
    """One build's index and how far it has followed the log; safe to share between threads."""

    def __init__(self, database: Database, index: SearchIndex, *, collection: Collection) -> None:
        self.index = index
        self._database = database
        self._collection = collection
        self._applying = threading.Lock()
        self._saving = threading.Lock()
        self._advanced = threading.Condition()
        self._checkpointed = index.watermark
        self._attributes = _Attributes(-1, {})

    def latest_sequence(self) -> int:
        """Return the sequence of the build's last committed change; 0 for none."""
        with self._database.read() as connection:
            latest = connection.execute(
                select(func.max(change.c.sequence)).where(
                    change.c.build_id == self._collection.build_id
                )
            ).scalar()
        return int(latest or 0)

    def refresh(self) -> int:
        """Apply every committed change the index has not seen; returns the watermark."""
        with self._applying:
            while batch := self._read(self.index.watermark):
                self.index.apply(batch)
                with self._advanced:
                    self._advanced.notify_all()
        return self.index.watermark

    def catch_up(self, sequence: int, *, timeout_seconds: float) -> bool:
        """Wait until the index has seen `sequence`; false if it has not by then.

        Whoever comes first applies the changes; the others wait for the result.
        """
        deadline = time.monotonic() + timeout_seconds
        while self.index.watermark < sequence:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return False
            if self._applying.acquire(blocking=False):
                self._applying.release()
                self.refresh()
            else:
                with self._advanced:
                    self._advanced.wait(timeout=min(remaining, 0.05))
        return True

    def documents_matching(self, chosen: Filter) -> NDArray[np.int64]:
        """Return the sorted numbers of the documents whose metadata match."""
        attributes = self._current_attributes()
        numbers = [
            number for number, values in attributes.by_document.items() if matches(chosen, values)
        ]
        return np.array(sorted(numbers), dtype=np.int64)

    def checkpoint(self, *, at_least: int = CHECKPOINT_CHANGES, wait: bool = True) -> None:
        """Make the index durable if it has moved by `at_least` changes since the last time.

        It is also done when the index asks for it, which may take minutes. Without `wait` it is
        not, and a checkpoint that another thread is at is left to that one.
        """
        if not self._saving.acquire(blocking=wait):
            return
        try:
            watermark = self.index.watermark
            if watermark - self._checkpointed >= at_least or (wait and self.index.is_due()):
                self.index.checkpoint()
                self._checkpointed = watermark
        finally:
            self._saving.release()

    def close(self) -> None:
        with self._applying:
            self.index.close()

    def _current_attributes(self) -> _Attributes:
        latest = self.latest_sequence()
        if self._attributes.sequence != latest:
            with self._database.read() as connection:
                rows = connection.execute(
                    select(
                        document.c.id,
                        document.c.metadata,
                        document.c.source,
                        document.c.title,
                        file.c.filename,
                    )
                    .join(file, file.c.id == document.c.file_id)
                    .where(document.c.collection_id == self._collection.id)
                )
                by_document = {
                    row.id: {
                        "source": row.source,
                        "title": row.title,
                        "filename": row.filename,
                        **row.metadata,
                    }
                    for row in rows
                }
            self._attributes = _Attributes(latest, by_document)
        return self._attributes

    def _read(self, after: int) -> Sequence[Change]:
        with self._database.read() as connection:
            rows = connection.execute(
                select(
                    change.c.sequence,
                    change.c.operation,
                    change.c.chunk_id,
                    chunk.c.document_id,
                    chunk.c.text,
                    chunk.c.heading,
                    chunk.c.vector,
                    document.c.title,
                )
                .outerjoin(chunk, chunk.c.id == change.c.chunk_id)
                .outerjoin(document, document.c.id == chunk.c.document_id)
                .where(change.c.build_id == self._collection.build_id, change.c.sequence > after)
                .order_by(change.c.sequence)
                .limit(BATCH_CHANGES)
            )
            return [_change(row) for row in rows]


class Views:
    """Opens the view of a collection at its first use and keeps it; keeps it open."""

    def __init__(
        self,
        database: Database,
        folder: Path,
        *,
        index: str,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self._database = database
        self._folder = folder
        self._index = index
        self._options = dict(options or {})
        self._opening = threading.Lock()
        self._open: dict[int, View] = {}

    def get(self, collection: Collection) -> View:
        """Return the view of the collection's live build, opened from its last checkpoint."""
        view = self._open.get(collection.build_id)
        if view is None:
            with self._opening:
                view = self._open.get(collection.build_id)
                if view is None:
                    view = View(self._database, self._open_index(collection), collection=collection)
                    self._open[collection.build_id] = view
        return view

    def folder(self, collection: Collection) -> Path:
        return self._folder / collection.public_id / str(collection.build_id)

    def forget(self, collection: Collection) -> None:
        """Let go of the view of a removed collection; its folder may then be deleted.

        It is not closed: a search may still be running on it, and the last one to end frees it.
        """
        with self._opening:
            self._open.pop(collection.build_id, None)
        remove_index(self._index, self.folder(collection), **self._options)

    def checkpoint(self, *, at_least: int = CHECKPOINT_CHANGES, wait: bool = True) -> None:
        """Checkpoint every open view that has moved enough; a full disk is logged, not fatal."""
        for view in list(self._open.values()):
            try:
                view.checkpoint(at_least=at_least, wait=wait)
            except (OSError, StorageFailed) as error:
                logger.warning("checkpoint failed: %s", error)

    def close(self) -> None:
        with self._opening:
            views, self._open = list(self._open.values()), {}
        for view in views:
            view.close()

    def _open_index(self, collection: Collection) -> SearchIndex:
        return open_index(
            self._index,
            self.folder(collection),
            dimension=collection.recipe.dimension,
            **self._options,
        )


def require_sequence(view: View, sequence: int, *, timeout_seconds: float) -> None:
    """Wait until `view` has seen a write.

    Raises:
        NotReady: it has not within the time.
    """
    if not view.catch_up(sequence, timeout_seconds=timeout_seconds):
        raise NotReady(
            f"The index is at {view.index.watermark}, {sequence} was asked for; try again shortly"
        )


def _change(row: Any) -> Change:
    # A chunk that was upserted and deleted since has no row any more: both entries say it is gone.
    gone = row.operation == "delete" or row.vector is None
    return Change(
        sequence=row.sequence,
        chunk_id=row.chunk_id,
        document_id=row.document_id or 0,
        text=row.text or "",
        heading=row.heading or row.title or "",
        vector=None if gone else np.frombuffer(row.vector, dtype="<f2"),
    )

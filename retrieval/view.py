"""A view: an index that follows a build's change log, and the metadata its filters need."""

from __future__ import annotations

import logging
import math
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import func, select

from infra.database.engine import Database
from infra.database.schema import change, chunk, document
from infra.errors import CorruptIndex, NotReady, RagstoneError, StorageFailed
from retrieval.collections import Collection
from retrieval.index_folders import Folders, compactions, known_folders, note_compaction
from retrieval.indexes import Change, SearchIndex, remove_index
from retrieval.selection import Selection

logger = logging.getLogger(__name__)

BATCH_CHANGES = 5_000
"""Applied at once: large enough to rebuild fast, small enough to bound memory (about 10 MB)."""
CHECKPOINT_CHANGES = 1_000
"""Replaying fewer at the next start takes less than a second; a checkpoint is not worth it."""


class View:
    """One build's index and how far it has followed the log; safe to share between threads."""

    def __init__(
        self,
        database: Database,
        index: SearchIndex,
        *,
        collection: Collection,
        folders: Folders | None = None,
    ) -> None:
        """Take an index, and where the next one is to stand when this one has been compacted."""
        self.index = index
        self._folders = folders
        self._database = database
        self.collection = collection
        self._applying = threading.Lock()
        self._saving = threading.Lock()
        self._advanced = threading.Condition()
        self._checkpointed = index.watermark
        self._is_complete = False
        self.selection = Selection(database, collection)

    @property
    def compactions(self) -> int:
        """How often the index was written anew."""
        return self._folders.compactions if self._folders else 0

    def latest_sequence(self) -> int:
        """Return the sequence of the build's last committed change; 0 for none."""
        with self._database.read() as connection:
            latest = connection.execute(
                select(func.max(change.c.sequence)).where(
                    change.c.build_id == self.collection.build_id
                )
            ).scalar()
        return int(latest or 0)

    @property
    def is_complete(self) -> bool:
        """Whether the index has held all that was committed, at some time since it was opened."""
        return self._is_complete

    def refresh(self) -> int:
        """Apply every committed change the index has not seen; returns the watermark."""
        self._follow()
        return self.index.watermark

    def compact(self) -> None:
        """Write the index anew from the database and let go of the old one.

        What was deleted is in no file of the new one. Searches go on with the old one meanwhile.

        Raises:
            Conflict: another machine was faster.
            StorageFailed: the disk is full; the old index stays.
        """
        if (folders := self._folders) is None:
            return
        with folders.turn():
            number = self._compactions_made() + 1
            self._adopt(self._opened(folders, number, is_next=True), folders, number)

    def renew(self) -> bool:
        """Follow a compaction that another process made; returns whether there was one.

        Raises:
            StorageFailed: the disk is full; the old index stays.
        """
        if self._folders is None or self._compactions_made() <= self._folders.compactions:
            return False
        return self._reopen(self.index)

    def catch_up(self, sequence: int | None = None, *, timeout_seconds: float) -> bool:
        """Wait until the index has seen `sequence`; false if it has not by then.

        Whoever comes first applies the changes, or opens an index whose files are gone; the others
        wait for that no longer than they say. Until the index has been complete once, whoever
        applies them does so to the end: what was found before that would be any part of the
        collection.

        Args:
            sequence: None for all that is committed now.
            timeout_seconds: how long.
        """
        wanted = self.latest_sequence() if sequence is None else sequence
        deadline = time.monotonic() + timeout_seconds
        while self.index.watermark < wanted:
            if time.monotonic() >= deadline:
                return False
            last = deadline if self._is_complete else math.inf
            with suppress(NotReady):
                self._follow(until=wanted, deadline=last, wait=False)
            if self.index.watermark < wanted:
                with self._advanced:
                    self._advanced.wait(timeout=min(max(deadline - time.monotonic(), 0.0), 0.05))
        if sequence is None:
            self._is_complete = True
        return True

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

    def _follow(
        self, *, until: int | None = None, deadline: float = math.inf, wait: bool = True
    ) -> None:
        """Apply what was committed; without `wait` not while another thread is at it.

        Raises:
            NotReady: the index must be opened anew, and without `wait` another is at that.
        """
        index = self.index
        try:
            self._apply(until=until, deadline=deadline, wait=wait)
        except (StorageFailed, CorruptIndex) as error:
            # Another process may have compacted the index, or somebody removed its files.
            if not self._reopen(index, is_lost=isinstance(error, CorruptIndex), wait=wait):
                raise
            self._apply(until=until, deadline=deadline, wait=wait)

    def _apply(self, *, until: int | None, deadline: float, wait: bool) -> None:
        if not self._applying.acquire(blocking=wait):
            return
        try:
            if self._fill(self.index, until=until, deadline=deadline):
                self._is_complete = True
        finally:
            self._applying.release()

    def _fill(
        self, index: SearchIndex, *, until: int | None = None, deadline: float = math.inf
    ) -> bool:
        """Apply the log up to `until`, all of it without; after `deadline` no further batch.

        Returns whether it came to the end of the log.
        """
        while until is None or index.watermark < until:
            batch = self._read(index.watermark)
            if batch:
                index.apply(batch)
                with self._advanced:
                    self._advanced.notify_all()
            if len(batch) < BATCH_CHANGES:
                return True
            if time.monotonic() >= deadline:
                break
        return False

    def _reopen(self, old: SearchIndex, *, is_lost: bool = False, wait: bool = True) -> bool:
        """Use the index of the last compaction instead of `old`; false if that is what it is."""
        if (folders := self._folders) is None:
            return False
        with folders.turn(wait=wait):
            if self.index is not old:
                return True
            made = self._compactions_made()
            if made <= folders.compactions and not is_lost:
                return False
            self._adopt(self._opened(folders, made), folders, made)
        return True

    def _opened(self, folders: Folders, number: int, *, is_next: bool = False) -> SearchIndex:
        """Open the index of a compaction, complete and durable; the next one is made here."""
        fresh = folders.open(number, anew=is_next)
        try:
            self._fill(fresh)
            fresh.checkpoint()
            if is_next:
                note_compaction(self._database, self.collection.build_id, number)
        except (RagstoneError, OSError):
            fresh.close()
            if is_next:  # else it is in use by others
                folders.remove(number)
            raise
        return fresh

    def _adopt(self, fresh: SearchIndex, folders: Folders, number: int) -> None:
        """Have searches use an index instead of the one there is; never one that is behind it."""
        with self._saving, self._applying:
            try:
                self._fill(fresh)
            except (RagstoneError, OSError):
                fresh.close()
                raise
            old, self.index = self.index, fresh
            self._is_complete = True
            self._checkpointed = 0
        folders.settle(number, old)

    def _compactions_made(self) -> int:
        return compactions(self._database, self.collection.build_id)

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
                .where(change.c.build_id == self.collection.build_id, change.c.sequence > after)
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
                    view = self._opened(collection)
                    self._open[collection.build_id] = view
        return view

    def folder(self, collection: Collection) -> Path:
        """Return where the index of the collection's build stands."""
        return self._folders(collection).path

    def remove(self, collection: Collection) -> None:
        """Remove the files of a build that is gone, of whatever compaction, and its view."""
        self.forget(collection)
        self._folders(collection).remove_all()

    def remove_strays(self) -> int:
        """Remove the folders of collections and builds that are gone; returns how many."""
        found = [
            path
            for parent in (self._folder.iterdir() if self._folder.is_dir() else ())
            for path in (parent, *(parent.iterdir() if parent.is_dir() else ()))
            if path.is_dir()
        ]  # first, so that what is made meanwhile is not among them
        kept = set(known_folders(self._database))
        strays = [path for path in found if path.relative_to(self._folder).as_posix() not in kept]
        for path in strays:
            shutil.rmtree(path, ignore_errors=True)
        return len(strays)

    def forget(self, collection: Collection) -> None:
        """Let go of the view of a removed collection; its folder may then be deleted.

        It is not closed: a search may still be running on it, and the last one to end frees it.
        """
        with self._opening:
            self._open.pop(collection.build_id, None)
        for path in self._folders(collection).all():
            remove_index(self._index, path, **self._options)

    def opened(self) -> list[View]:
        """Return the views that are open now."""
        return list(self._open.values())

    def checkpoint(self, *, at_least: int = CHECKPOINT_CHANGES, wait: bool = True) -> None:
        """Checkpoint every open view that has moved enough; a full disk is logged, not fatal."""
        for view in self.opened():
            try:
                view.checkpoint(at_least=at_least, wait=wait)
            except (OSError, StorageFailed) as error:
                logger.warning("checkpoint failed: %s", error)

    def close(self) -> None:
        """Close every open view; one whose files another process has replaced is only logged."""
        with self._opening:
            views, self._open = list(self._open.values()), {}
        for view in views:
            try:
                view.close()
            except StorageFailed as error:
                logger.warning("an index did not close: %s", error.message)

    def _opened(self, collection: Collection) -> View:
        # Not in its turn, which would be to wait for a whole compaction. One that ends meanwhile is
        # noted before the former folder goes, which may then fail to open, or be made once more.
        folders = self._folders(collection)
        while True:
            try:
                index = folders.open(folders.compactions)
            except (RagstoneError, OSError):
                made = compactions(self._database, collection.build_id)
                if made <= folders.compactions:
                    raise
                folders.compactions = made
                continue
            made = compactions(self._database, collection.build_id)
            if made <= folders.compactions:
                return View(self._database, index, collection=collection, folders=folders)
            folders.settle(made, index)

    def _folders(self, collection: Collection) -> Folders:
        return Folders(
            self._folder / collection.public_id,
            collection,
            plugin=self._index,
            options=self._options,
            compactions=compactions(self._database, collection.build_id),
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

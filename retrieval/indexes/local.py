"""The local index: FAISS and tantivy in this process, checkpointed to a folder of files."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.errors import CorruptIndex, StorageFailed
from retrieval.indexes import Change, Hits
from retrieval.indexes import _checkpoint as checkpoints
from retrieval.indexes._batch import Batch, query_vector, reduce
from retrieval.indexes._dense import Dense
from retrieval.indexes._folder import (
    ACCESS_LOCK,
    CHECKPOINT_LOCK,
    WorkingFolder,
    locked,
    locked_if_free,
)
from retrieval.indexes._lexical import Lexical
from retrieval.indexes._ranking import nothing

logger = logging.getLogger(__name__)


def build(folder: Path, *, dimension: int) -> LocalIndex:
    """Open the index in `folder` at its last sound checkpoint, or empty if there is none.

    Raises:
        StorageFailed: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return LocalIndex(folder, dimension=dimension)
    except OSError as error:
        raise StorageFailed(f"Cannot open the index in {str(folder)!r}: {error}") from error


@dataclass(frozen=True, slots=True)
class _State:
    """What searches see; replaced as a whole."""

    dense: Dense
    searcher: Any
    """A tantivy searcher of the same changes."""
    watermark: int


class LocalIndex:
    """Dense and lexical search in process; see `retrieval.indexes.SearchIndex`.

    Several processes may have one folder open: each follows the change log by itself, and a
    checkpoint is only ever replaced by a later one.
    """

    def __init__(self, folder: Path, *, dimension: int) -> None:
        self._folder = folder
        self._dimension = dimension
        self._writing = threading.Lock()
        self._uncertain_until = 0
        """Watermark of a batch whose commit failed: the text index may hold any part of it."""
        self._refused: bytes | None = None
        """The manifest that was found unsound at the start; any other replaces it."""
        self._working = WorkingFolder(folder)
        try:
            self._lexical, dense, watermark = self._opened()
        except BaseException:
            self._working.remove()
            raise
        self._state = _State(dense, self._lexical.searcher(), watermark)
        self._durable = watermark

    @property
    def watermark(self) -> int:
        return self._state.watermark

    def __len__(self) -> int:
        return len(self._state.dense)

    def apply(self, changes: Sequence[Change]) -> None:
        with self._writing:
            before = self._state
            batch = reduce(changes, after=before.watermark, dimension=self._dimension)
            if batch is None:
                return
            held = before.dense.held(batch.touched)
            dense = _advanced(before.dense, batch, held=held)
            certain = before.watermark >= self._uncertain_until
            try:
                self._lexical.replace((held if certain else batch.touched).tolist(), batch.upserts)
            except StorageFailed:
                self._uncertain_until = max(self._uncertain_until, batch.watermark)
                raise
            self._state = _State(dense, self._lexical.searcher(), batch.watermark)

    def dense(
        self, vector: NDArray[np.float32], limit: int, *, documents: NDArray[np.int64] | None = None
    ) -> Hits:
        query = query_vector(vector, dimension=self._dimension)
        return self._state.dense.search(query, limit, documents=documents)

    def lexical(
        self, query: str, limit: int, *, documents: NDArray[np.int64] | None = None
    ) -> Hits:
        if documents is not None and not len(documents):
            return nothing()
        return self._lexical.search(self._state.searcher, query, limit, documents=documents)

    def vectors(self, chunk_ids: NDArray[np.int64]) -> NDArray[np.float16]:
        return self._state.dense.vectors(chunk_ids)

    def checkpoint(self) -> None:
        """Make what was applied durable, unless another process is at it or is further.

        Raises:
            StorageFailed: the files cannot be written; the former checkpoint stays.
        """
        with self._writing:
            watermark = self._state.watermark
            if watermark == self._durable or watermark < self._uncertain_until:
                return
            try:
                with locked_if_free(self._folder / CHECKPOINT_LOCK) as free:
                    if free:
                        self._write_checkpoint()
            except (OSError, RuntimeError) as error:
                # RuntimeError is how FAISS says that the disk is full.
                raise StorageFailed(
                    f"Cannot write a checkpoint in {str(self._folder)!r}: {error}"
                ) from error

    def close(self) -> None:
        with self._writing:
            try:
                self._lexical.settle()
            finally:
                self._working.remove()

    def _write_checkpoint(self) -> None:
        self._lexical.settle()
        state = self._state
        dense = state.dense.compacted()
        self._state = _State(dense, self._lexical.searcher(), state.watermark)
        if not self._is_superseded(state.watermark):
            content = checkpoints.Content(dense, self._lexical_folder, state.watermark)
            checkpoints.write(self._folder, content)
        self._durable = state.watermark

    def _is_superseded(self, watermark: int) -> bool:
        """Whether the folder already has a sound checkpoint that goes to `watermark` or beyond."""
        raw = checkpoints.manifest_bytes(self._folder)
        if raw is None or raw == self._refused:
            return False
        try:
            return checkpoints.Manifest.decoded(raw).watermark >= watermark
        except CorruptIndex:
            return False

    def _opened(self) -> tuple[Lexical, Dense, int]:
        # Shared with other readers; nobody removes the files meanwhile.
        with locked(self._folder / ACCESS_LOCK, shared=True):
            raw = checkpoints.manifest_bytes(self._folder)
            if raw is not None:
                try:
                    return self._load(raw)
                except CorruptIndex as error:
                    logger.warning(
                        "the checkpoint in %r is not used, the index is rebuilt: %s",
                        str(self._folder),
                        error,
                    )
                    self._refused = raw
        shutil.rmtree(self._lexical_folder, ignore_errors=True)
        return Lexical(self._lexical_folder), Dense(self._dimension), 0

    def _load(self, raw: bytes) -> tuple[Lexical, Dense, int]:
        manifest, dense = checkpoints.read(
            self._folder, raw, dimension=self._dimension, lexical=self._lexical_folder
        )
        lexical = Lexical(self._lexical_folder)
        texts = lexical.searcher().num_docs
        if not len(dense) == texts == manifest.chunks:
            raise CorruptIndex(
                f"{len(dense)!r} vectors, {texts!r} texts, {manifest.chunks!r} in the manifest"
            )
        return lexical, dense, manifest.watermark

    @property
    def _lexical_folder(self) -> Path:
        return self._working.path / "lexical"


def _advanced(dense: Dense, batch: Batch, *, held: NDArray[np.int64]) -> Dense:
    documents = np.array([change.document_id for change in batch.upserts], dtype=np.int64)
    chunk_ids = np.array([change.chunk_id for change in batch.upserts], dtype=np.int64)
    return dense.without(np.sort(held)).with_rows(chunk_ids, documents, batch.vectors)

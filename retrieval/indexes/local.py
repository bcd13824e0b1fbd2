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
from retrieval.indexes._asked import Asked
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
from retrieval.indexes._options import Options
from retrieval.indexes._ranking import nothing
from retrieval.indexes._settling import is_settled, settled

logger = logging.getLogger(__name__)


def build(folder: Path, *, dimension: int, **options: Any) -> LocalIndex:
    """Open the index in `folder` at its last sound checkpoint, or empty if there is none.

    Raises:
        InvalidConfiguration: an unknown option, or one that makes no sense.
        StorageFailed: the folder cannot be written.
    """
    chosen = Options.of(options)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return LocalIndex(folder, dimension=dimension, options=chosen)
    except OSError as error:
        raise StorageFailed(f"Cannot open the index in {str(folder)!r}: {error}") from error


@dataclass(frozen=True, slots=True)
class _State:
    """What searches see; replaced as a whole."""

    dense: Dense
    searcher: Any
    """A tantivy searcher of the same changes."""
    watermark: int


class _Closing(Exception):
    """A long build ends because nobody will use it."""


class LocalIndex:
    """Dense and lexical search in process; see `retrieval.indexes.SearchIndex`.

    Several processes may have one folder open: each follows the change log by itself, and a
    checkpoint is only ever replaced by a later one.
    """

    def __init__(self, folder: Path, *, dimension: int, options: Options | None = None) -> None:
        self._folder = folder
        self._dimension = dimension
        self._options = options or Options()
        self._checkpointing = threading.Lock()
        """Taken before `_writing`, and held while a structure is built."""
        self._writing = threading.Lock()
        self._closing = threading.Event()
        self._changed: set[int] | None = None
        """Chunks that were changed while a checkpoint is being written; None while none is."""
        self._uncertain_until = 0
        """Watermark of a batch whose commit failed: the text index may hold any part of it."""
        self._refused: bytes | None = None
        """The manifest that was found unsound at the start; any other replaces it."""
        self._asked = Asked()
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
            except StorageFailed as error:
                self._uncertain_until = max(self._uncertain_until, batch.watermark)
                if not self._working.path.is_dir():
                    raise CorruptIndex(f"The files of the index were removed: {error}") from error
                raise
            self._state = _State(dense, self._lexical.searcher(), batch.watermark)
            if self._changed is not None:
                self._changed.update(batch.touched.tolist())

    def dense(
        self, vector: NDArray[np.float32], limit: int, *, documents: NDArray[np.int64] | None = None
    ) -> Hits:
        query = query_vector(vector, dimension=self._dimension)
        if self._options.kinds and len(self) >= self._options.smallest:
            self._asked.note(query)
        return self._state.dense.search(query, limit, documents=documents)

    def lexical(
        self, query: str, limit: int, *, documents: NDArray[np.int64] | None = None
    ) -> Hits:
        if documents is not None and not len(documents):
            return nothing()
        return self._lexical.search(self._state.searcher, query, limit, documents=documents)

    def vectors(self, chunk_ids: NDArray[np.int64]) -> NDArray[np.float16]:
        return self._state.dense.vectors(chunk_ids)

    def is_due(self) -> bool:
        """Whether a checkpoint would change how vectors are searched, as after a new setting.

        Or might, because enough questions were asked to measure again what is found.
        """
        return not is_settled(self._state.dense, self._options, asked=self._asked)

    def checkpoint(self) -> None:
        """Make what was applied durable, unless another process is at it or is further.

        Changes may be applied meanwhile, and searches do not wait. A build that is not done when
        the index is closed is given up.

        Raises:
            StorageFailed: the files cannot be written; the former checkpoint stays.
        """
        with self._checkpointing:
            if self._closing.is_set():
                return
            try:
                with locked_if_free(self._folder / CHECKPOINT_LOCK) as free:
                    if free:
                        self._write_checkpoint()
            except _Closing:
                logger.info("the build in %r was given up, the index closes", str(self._folder))
            except (OSError, RuntimeError) as error:
                # RuntimeError is how FAISS says that the disk is full.
                raise StorageFailed(
                    f"Cannot write a checkpoint in {str(self._folder)!r}: {error}"
                ) from error

    def close(self) -> None:
        self._closing.set()
        with self._checkpointing, self._writing:
            try:
                self._lexical.settle()
            finally:
                self._working.remove()

    def _write_checkpoint(self) -> None:
        watermark = self._state.watermark
        if watermark == self._durable and not self.is_due():
            return
        try:
            with checkpoints.draft(self._folder, watermark=watermark) as draft:
                before = self._begin(draft)
                if before is None:
                    return
                dense = settled(before.dense, self._options, step=self._proceed, asked=self._asked)
                stored = draft.publish(dense, watermark=before.watermark)
            self._adopt(stored, watermark=before.watermark)
        finally:
            with self._writing:
                self._changed = None

    def _begin(self, draft: checkpoints.Draft) -> _State | None:
        """Take the texts as they are now, and note what changes from here; None: not to be done."""
        with self._writing:
            state = self._state
            if state.watermark < self._uncertain_until:
                return None
            self._lexical.settle()
            self._state = _State(state.dense, self._lexical.searcher(), state.watermark)
            if self._is_superseded(state.watermark):
                self._durable = state.watermark
                return None
            draft.take_texts(self._lexical_folder)
            self._changed = set()
            return state

    def _adopt(self, stored: Dense, *, watermark: int) -> None:
        """Go on with the vectors of the checkpoint, mapped, and what has changed meanwhile."""
        with self._writing:
            state = self._state
            changed = np.array(sorted(self._changed or ()), dtype=np.int64)
            dense = stored.with_changes_of(state.dense, changed)
            self._state = _State(dense, state.searcher, state.watermark)
            self._durable = watermark

    def _proceed(self) -> None:
        if self._closing.is_set():
            raise _Closing

    def _is_superseded(self, watermark: int) -> bool:
        """Whether the folder already has a sound checkpoint that goes as far, and is as wanted."""
        raw = checkpoints.manifest_bytes(self._folder)
        if raw is None or raw == self._refused:
            return False
        try:
            reached = checkpoints.Manifest.decoded(raw).watermark
        except CorruptIndex:
            return False
        return reached > watermark or (reached == watermark and not self.is_due())

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

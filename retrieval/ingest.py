"""Documents in: load -> split -> embed -> commit, one durable transaction per document."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from sqlalchemy import select

from infra.artifacts.blobs import Blob, BlobStore
from infra.contracts import Chunk, Document, Embedder, Vectors
from infra.database.engine import Database
from infra.database.schema import chunk, document
from infra.errors import InvalidConfiguration, NotFound, UnreadableDocument
from retrieval.chunking import split
from retrieval.collections import Collection
from retrieval.commit import Committed, Prepared, commit_document
from retrieval.documents import Documents, check_metadata
from retrieval.embedders import HasSiblings
from retrieval.files import BLOBS_LOCK, Files
from retrieval.prefetch import prefetch
from retrieval.reading import Reader
from retrieval.sources import Source, Unwalkable

logger = logging.getLogger(__name__)

WINDOW_CHUNKS = 256
"""Chunks sorted by length together: enough for even batches, little enough to commit often."""
BATCH_CHUNKS = 64
"""Chunks embedded at once: progress is told, and an interrupt heard, between two batches."""
READ_AHEAD = 4
"""Documents read and split while others are embedded."""


@dataclass(frozen=True, slots=True)
class Unchanged:
    """The same bytes under the same recipe: not read, not embedded."""

    uri: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """A document that could not be read; the version read before, if any, stays."""

    uri: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Embedded:
    """Progress within a window of documents."""

    chunks: int


@dataclass(frozen=True, slots=True)
class Warned:
    """A part of a document could not be read; the rest was."""

    uri: str
    message: str


@dataclass(frozen=True, slots=True)
class Removed:
    """A document whose source is gone."""

    uri: str


Event: TypeAlias = Committed | Unchanged | Skipped | Embedded | Warned | Removed


@dataclass(slots=True)
class Summary:
    """What an ingest did, counted from its events."""

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    removed: int = 0
    chunks: int = 0
    sequence: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    warnings: list[Warned] = field(default_factory=list)

    def add(self, event: Event) -> None:
        match event:
            case Committed():
                if event.version == 1:
                    self.added += 1
                else:
                    self.updated += 1
                self.chunks += event.chunks
                self.sequence = max(self.sequence, event.sequence)
            case Unchanged():
                self.unchanged += 1
            case Removed():
                self.removed += 1
            case Skipped():
                self.skipped.append(event)
            case Warned():
                self.warnings.append(event)
            case Embedded():
                pass


@dataclass(frozen=True, slots=True)
class _Split:
    """A document read and split, waiting to be embedded."""

    source: Source
    blob: Blob
    content: Document
    chunks: Sequence[Chunk]
    known: Mapping[tuple[str, str], np.ndarray[Any, np.dtype[np.float32]]]
    """Vectors of the former version by (heading, text): what did not change is kept."""


@dataclass(frozen=True, slots=True)
class _Window:
    """Documents that were embedded together, ready to be committed one by one."""

    documents: tuple[tuple[_Split, Prepared], ...]


class Ingester:
    """Reads sources into collections; safe to run in several processes at once."""

    def __init__(
        self, database: Database, blobs: BlobStore, *, reader: Reader, embedder: Embedder
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._reader = reader
        self._embedder = embedder
        self._documents = Documents(database)
        self._files = Files(database, blobs)

    def ingest(
        self,
        into: Collection,
        sources: Iterable[Source | Unwalkable],
        *,
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> Iterator[Event]:
        """Read sources into a collection, yielding what happened as it happens.

        What was yielded as `Committed` is durable; stopping at any point loses only what was not.

        Raises:
            InvalidConfiguration: the collection was built with another embedder.
            StorageFailed: the disk is full or the database cannot be reached; run it again later.
        """
        matching_embedder(into, self._embedder)
        # Three stages side by side: while one window is embedded, the next documents are read and
        # the window before is written to the disk.
        loaded = prefetch((self._load(into, source) for source in sources), READ_AHEAD)
        for outcome in prefetch(self._embed_windows(into, loaded), READ_AHEAD):
            if is_cancelled():
                return
            if isinstance(outcome, _Window):
                for item, prepared in outcome.documents:
                    yield self._commit(into, item, prepared)
                    yield from (Warned(item.source.uri, text) for text in item.content.warnings)
            else:
                yield outcome
        self._files.sweep()

    def process(self, into: Collection, file_id: str) -> Committed | None:
        """Read an attached file; None when it is gone, cancelled, or unreadable (`failed`)."""
        matching_embedder(into, self._embedder)
        try:
            attached = self._documents.get(into, file_id)
            path = self._files.path(file_id)
        except NotFound:
            return None
        if attached.status != "in_progress":
            return None
        source = Source(attached.source, path, attached.filename, attached.metadata)
        try:
            item = self._read(into, source, Blob(attached.digest, attached.bytes))
        except UnreadableDocument as error:
            self._documents.fail(into, file_id, code=error.code, message=error.message)
            return None
        for outcome in self._embed_window(into, [item]):
            if isinstance(outcome, _Window):
                [(_, prepared)] = outcome.documents
        with self._database.write(lock=into.id) as connection:
            try:
                return commit_document(connection, into, prepared, file_id=file_id)
            except NotFound:
                return None

    def prune(self, into: Collection, folders: Sequence[Path], seen: set[str]) -> Iterator[Removed]:
        """Delete the documents below `folders` whose source was not seen."""
        prefixes = tuple(f"{folder.resolve().as_uri()}/" for folder in folders if folder.is_dir())
        with self._database.read() as connection:
            rows = connection.execute(
                select(document.c.source, document.c.file_id).where(
                    document.c.collection_id == into.id
                )
            ).all()
        for row in rows:
            if row.source.startswith(prefixes) and row.source not in seen:
                self._documents.delete(into, row.file_id)
                yield Removed(row.source)
        self._files.sweep()

    def _load(self, into: Collection, source: Source | Unwalkable) -> _Split | Skipped | Unchanged:
        if isinstance(source, Unwalkable):
            return Skipped(source.uri, "unreadable", source.reason)
        try:
            check_metadata(source.metadata)
            digest = _hash(source.path)
            if self._is_current(into, source, digest):
                return Unchanged(source.uri)
            return self._read(into, source, None)
        except UnreadableDocument as error:
            return Skipped(source.uri, error.code, error.message)
        except OSError as error:
            return Skipped(source.uri, "unreadable", error.strerror or str(error))

    def _is_current(self, into: Collection, source: Source, digest: str) -> bool:
        """True if these bytes are in; metadata that changed alone are replaced in passing."""
        with self._database.read() as connection:
            row = connection.execute(
                select(document.c.file_id, document.c.metadata).where(
                    document.c.collection_id == into.id,
                    document.c.source == source.uri,
                    document.c.digest == digest,
                    document.c.status == "completed",
                )
            ).first()
        if row is None:
            return False
        if {**row.metadata, **source.metadata} != row.metadata:
            self._documents.update_metadata(into, row.file_id, {**row.metadata, **source.metadata})
        return True

    def _read(self, into: Collection, source: Source, blob: Blob | None) -> _Split:
        """Load and split one document; its bytes are stored first, and those are read."""
        stored = blob or self._blobs.put_file(source.path)
        try:
            content = self._reader.read(self._blobs.path(stored.digest), filename=source.filename)
        except UnreadableDocument:
            if blob is None:
                self._files.discard(stored.digest)
            raise
        chunks = split(
            content,
            self._embedder.token_spans(content.text),
            max_tokens=into.recipe.chunk_tokens,
            overlap_tokens=into.recipe.chunk_overlap_tokens,
        )
        return _Split(source, stored, content, chunks, self._known_vectors(into, source.uri))

    def _known_vectors(
        self, into: Collection, uri: str
    ) -> dict[tuple[str, str], np.ndarray[Any, np.dtype[np.float32]]]:
        with self._database.read() as connection:
            rows = connection.execute(
                select(chunk.c.heading, chunk.c.text, chunk.c.vector, document.c.title)
                .join(document, document.c.id == chunk.c.document_id)
                .where(
                    document.c.collection_id == into.id,
                    document.c.source == uri,
                    chunk.c.build_id == into.build_id,
                )
            )
            return {
                (row.heading or row.title, row.text): np.frombuffer(row.vector, "<f2").astype(
                    np.float32
                )
                for row in rows
            }

    def _embed_windows(
        self, into: Collection, outcomes: Iterator[_Split | Event]
    ) -> Iterator[_Window | Event]:
        window: list[_Split] = []
        for outcome in outcomes:
            if not isinstance(outcome, _Split):
                yield outcome
                continue
            window.append(outcome)
            if sum(len(item.chunks) for item in window) >= WINDOW_CHUNKS:
                yield from self._embed_window(into, window)
                window = []
        yield from self._embed_window(into, window)

    def _embed_window(self, into: Collection, window: list[_Split]) -> Iterator[_Window | Embedded]:
        missing = [
            embedding_text(item.content, piece)
            for item in window
            for piece in item.chunks
            if _context(item.content, piece) not in item.known
        ]
        fresh = np.empty((len(missing), into.recipe.dimension), dtype=np.float32)
        embedder = matching_embedder(into, self._embedder)
        # Texts of like length go together: a batch is padded to its longest.
        order = sorted(range(len(missing)), key=lambda position: -len(missing[position]))
        for start in range(0, len(order), BATCH_CHUNKS):
            batch = order[start : start + BATCH_CHUNKS]
            fresh[batch] = embedder.embed([missing[at] for at in batch], kind="document")
            yield Embedded(len(batch))
        rows = iter(fresh)
        documents = []
        for item in window:
            vectors = [
                item.known[key]
                if (key := _context(item.content, piece)) in item.known
                else next(rows)
                for piece in item.chunks
            ]
            documents.append((item, _prepared(item, _stack(vectors, into.recipe.dimension))))
        yield _Window(tuple(documents))

    def _commit(self, into: Collection, item: _Split, prepared: Prepared) -> Committed | Unchanged:
        with self._database.write(lock=into.id) as connection:
            self._database.lock(connection, BLOBS_LOCK, shared=True)
            if item.blob.digest not in self._blobs:  # a sweep ran before anything referred to it
                self._blobs.put_file(item.source.path)
            return commit_document(connection, into, prepared) or Unchanged(item.source.uri)


def matching_embedder(collection: Collection, embedder: Embedder) -> Embedder:
    """Return the embedder, or its model in the precision that the collection was built with.

    Raises:
        InvalidConfiguration: the collection was built with another model.
    """
    wanted = collection.recipe.embedder_identity
    if wanted == embedder.identity:
        return embedder
    if isinstance(embedder, HasSiblings) and (sibling := embedder.sibling(wanted)) is not None:
        return sibling
    raise InvalidConfiguration(
        f"Collection {collection.name!r} was built with {collection.recipe.embedder!r} "
        f"({wanted[:19]}), the settings choose another model "
        f"({embedder.identity[:19]}); set retrieval.embedder back or use a new collection"
    )


def embedding_text(content: Document, piece: Chunk) -> str:
    """What is embedded of a chunk: its text under the headings (or the title) it stands below."""
    context = piece.heading or content.title
    return f"{context}\n{piece.text}" if context else piece.text


def _context(content: Document, piece: Chunk) -> tuple[str, str]:
    return piece.heading or content.title, piece.text


def _prepared(item: _Split, vectors: Vectors) -> Prepared:
    return Prepared(
        uri=item.source.uri,
        filename=item.source.filename,
        blob=item.blob,
        content=item.content,
        metadata={**_plain(item.content.metadata), **item.source.metadata},
        chunks=item.chunks,
        vectors=vectors,
    )


def _plain(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in metadata.items() if isinstance(value, str | int | float)}


def _stack(vectors: Sequence[np.ndarray[Any, np.dtype[np.float32]]], dimension: int) -> Vectors:
    return np.stack(vectors) if vectors else np.zeros((0, dimension), dtype=np.float32)


def _hash(path: Path) -> str:
    with path.open("rb") as stream:
        return f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}"

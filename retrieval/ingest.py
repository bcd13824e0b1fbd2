"""Documents in: load -> split -> embed -> commit, one durable transaction per document."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from sqlalchemy import Connection, select

from infra.artifacts.blobs import Blob, BlobStore
from infra.contracts import Chunk, Document, Vectors
from infra.database.engine import Database
from infra.database.schema import document
from infra.errors import InvalidConfiguration, NotFound, UnreadableDocument
from retrieval.access import OtherTenant
from retrieval.build_state import Build, followed
from retrieval.collections import Collection
from retrieval.commit import BuildsChanged, Committed, Pieces, Prepared, commit_document
from retrieval.documents import Documents, check_metadata
from retrieval.embedding import Embedded, Embedders, Known, Text, embed, in_context, joined
from retrieval.files import BLOBS_LOCK, Files
from retrieval.held import is_current, known_vectors, require_tenant
from retrieval.prefetch import prefetch
from retrieval.reading import Reader
from retrieval.recipe import Recipe
from retrieval.sources import Source, Unwalkable
from retrieval.splitting import Splitter

logger = logging.getLogger(__name__)

WINDOW_CHUNKS = 256
"""Chunks sorted by length together: enough for even batches, little enough to commit often."""
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
class _Draft:
    """A document split for one build, waiting to be embedded."""

    build: Build
    chunks: Sequence[Chunk]
    known: Known
    """Vectors of the former version: what did not change is kept."""


@dataclass(frozen=True, slots=True)
class _Split:
    """A document read, and split for every build that is to hold it."""

    source: Source
    blob: Blob
    content: Document
    drafts: Sequence[_Draft]

    @property
    def chunks(self) -> int:
        return sum(len(draft.chunks) for draft in self.drafts)

    def texts(self, draft: _Draft) -> list[Text]:
        return [in_context(piece, self.content.title) for piece in draft.chunks]


@dataclass(frozen=True, slots=True)
class _Window:
    """Documents that were embedded together, ready to be committed one by one."""

    documents: tuple[tuple[_Split, Prepared], ...]


class Ingester:
    """Reads sources into collections; safe to run in several processes at once."""

    def __init__(
        self,
        database: Database,
        blobs: BlobStore,
        *,
        reader: Reader,
        embedders: Embedders,
        splitter: Splitter | None = None,
        files: Files | None = None,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._reader = reader
        self._embedders = embedders
        self._splitter = splitter or Splitter()
        self._documents = Documents(database)
        self._files = files or Files(database, blobs)

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
        self._embedders.of(into.recipe, collection=into.name)
        self._splitter.require(into.recipe.splitter, collection=into.name)
        # Three stages side by side: while one window is embedded, the next documents are read and
        # the window before is written to the disk.
        loaded = prefetch((self._load(into, source) for source in sources), READ_AHEAD)
        for outcome in prefetch(self._embed_windows(loaded), READ_AHEAD):
            if is_cancelled():
                return
            if isinstance(outcome, _Window):
                for item, prepared in outcome.documents:
                    yield self._written(into, item, prepared)
                    yield from (Warned(item.source.uri, text) for text in item.content.warnings)
            else:
                yield outcome
        self._files.sweep()

    def process(self, into: Collection, file_id: str) -> Committed | None:
        """Read an attached file; None when it is gone, cancelled, or unreadable (`failed`)."""
        self._embedders.of(into.recipe, collection=into.name)
        self._splitter.require(into.recipe.splitter, collection=into.name)
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
        try:
            return self._commit(into, item, self._embed_one(item), file_id=file_id)
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
            return Skipped(source.uri, source.code, source.reason)
        try:
            check_metadata(source.metadata)
            require_tenant(self._database, into, source)
            if is_current(self._documents, into, source, digest=_hash(source.path)):
                return Unchanged(source.uri)
            return self._read(into, source, None)
        except UnreadableDocument as error:
            return Skipped(source.uri, error.code, error.message)
        except OtherTenant as error:
            return Skipped(source.uri, "other_tenant", error.message)
        except OSError as error:
            return Skipped(source.uri, "unreadable", error.strerror or str(error))

    def _read(self, into: Collection, source: Source, blob: Blob | None) -> _Split:
        """Load and split one document; its bytes are stored first, and those are read."""
        stored = blob or self._blobs.put_file(source.path)
        try:
            content = self._reader.read(self._blobs.path(stored.digest), filename=source.filename)
            drafts = self._drafts(into, source.uri, content)
        except UnreadableDocument:
            if blob is None:
                self._files.discard(stored.digest)
            raise
        return _Split(source, stored, content, drafts)

    def _drafts(self, into: Collection, uri: str, content: Document) -> list[_Draft]:
        """Split a document for each build that a write goes to; the live one comes first."""
        with self._database.read() as connection:
            builds = followed(connection, into.id)
        drafts: list[_Draft] = []
        for each in builds:
            alike = [
                draft
                for draft in drafts
                if draft.build.recipe.embedder_identity == each.recipe.embedder_identity
                and draft.build.recipe.chunking == each.recipe.chunking
            ]
            try:
                chunks = alike[0].chunks if alike else self._split(into, content, each.recipe)
            except InvalidConfiguration as error:
                if each.state == "live":
                    raise
                raise InvalidConfiguration(
                    f"Build {each.id} of {into.name!r} ({each.state}) cannot be kept in step; "
                    f"bring its model back, or retire it: {error.message}"
                ) from error
            drafts.append(_Draft(each, chunks, known_vectors(self._database, into, uri, of=each)))
        return drafts

    def _split(self, into: Collection, content: Document, recipe: Recipe) -> Sequence[Chunk]:
        return self._splitter.split(
            content,
            self._embedders.of(recipe, collection=into.name).token_spans(content.text),
            max_tokens=recipe.chunk_tokens,
            overlap_tokens=recipe.chunk_overlap_tokens,
        )

    def _embed_windows(self, outcomes: Iterator[_Split | Event]) -> Iterator[_Window | Event]:
        window: list[_Split] = []
        for outcome in outcomes:
            if not isinstance(outcome, _Split):
                yield outcome
                continue
            window.append(outcome)
            if sum(item.chunks for item in window) >= WINDOW_CHUNKS:
                yield from self._embed_window(window)
                window = []
        yield from self._embed_window(window)

    def _embed_window(self, window: list[_Split]) -> Iterator[_Window | Embedded]:
        vectors = yield from embed(
            [
                (draft.build.recipe, item.texts(draft), draft.known)
                for item in window
                for draft in item.drafts
            ],
            self._embedders,
        )
        rows = iter(vectors)
        yield _Window(tuple((item, _prepared(item, rows)) for item in window))

    def _embed_one(self, item: _Split) -> Prepared:
        for outcome in self._embed_window([item]):
            if isinstance(outcome, _Window):
                [(_, prepared)] = outcome.documents
        return prepared

    def _written(
        self, into: Collection, item: _Split, prepared: Prepared
    ) -> Committed | Unchanged | Skipped:
        """Commit a document, unless another writer was faster with its bytes, and they are in."""
        uri = item.source.uri
        try:
            while (committed := self._commit(into, item, prepared)) is None:
                require_tenant(self._database, into, item.source)
                if is_current(self._documents, into, item.source, digest=item.blob.digest):
                    return Unchanged(uri)
        except OtherTenant as error:
            return Skipped(uri, "other_tenant", error.message)
        return committed

    def _commit(
        self, into: Collection, item: _Split, prepared: Prepared, *, file_id: str | None = None
    ) -> Committed | None:
        """Write a document; if a build has come or changed places since, prepare it for that."""
        while True:
            try:
                with self._database.write(lock=into.id) as connection:
                    if file_id is None:
                        self._keep_bytes(connection, item)
                    return commit_document(connection, into, prepared, file_id=file_id)
            except BuildsChanged:
                item = replace(item, drafts=self._drafts(into, item.source.uri, item.content))
                prepared = self._embed_one(item)

    def _keep_bytes(self, connection: Connection, item: _Split) -> None:
        self._database.lock(connection, BLOBS_LOCK, shared=True)
        if item.blob.digest not in self._blobs:  # a sweep ran before anything referred to it
            self._blobs.put_file(item.source.path)


def embedding_text(content: Document, piece: Chunk) -> str:
    """What is embedded of a chunk: its text under the headings (or the title) it stands below."""
    return joined(in_context(piece, content.title))


def _prepared(item: _Split, vectors: Iterator[Vectors]) -> Prepared:
    pieces = {draft.build.id: Pieces(draft.chunks, next(vectors)) for draft in item.drafts}
    live = next(iter(pieces.values()), Pieces((), np.zeros((0, 0), dtype=np.float32)))
    return Prepared(
        uri=item.source.uri,
        filename=item.source.filename,
        blob=item.blob,
        content=item.content,
        metadata={**_plain(item.content.metadata), **item.source.metadata},
        chunks=live.chunks,
        vectors=live.vectors,
        others=pieces,
        readers=item.source.readers,
    )


def _plain(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in metadata.items() if isinstance(value, str | int | float)}


def _hash(path: Path) -> str:
    with path.open("rb") as stream:
        return f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}"

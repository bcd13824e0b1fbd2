"""Fills a build beside the live one: split anew or take the chunks there are, embed, commit."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from sqlalchemy import Connection, Row, select

from infra.artifacts.blobs import BlobStore
from infra.contracts import Block, Chunk, Document, Vectors
from infra.database.engine import Database
from infra.database.schema import build_document, chunk, document, document_text, file
from infra.errors import Conflict, NotFound, UnreadableDocument
from retrieval import build_state
from retrieval.build_state import Build
from retrieval.collections import Collection
from retrieval.commit import Pieces, insert_pieces
from retrieval.embedding import Embedded, Embedders, Known, embed, in_context
from retrieval.prefetch import prefetch
from retrieval.reading import Reader
from retrieval.splitting import Splitter

logger = logging.getLogger(__name__)

WINDOW_CHUNKS = 256
"""Chunks embedded together: enough for even batches, little enough to commit often."""
PAGE_DOCUMENTS = 200
READ_AHEAD = 4
"""Documents read and split while others are embedded."""


@dataclass(frozen=True, slots=True)
class Built:
    """A document that the build holds from here on; killing the process does not undo it."""

    document_id: int
    chunks: int


@dataclass(frozen=True, slots=True)
class _Draft:
    """A version of a document split for the build, waiting to be embedded."""

    document_id: int
    version: int
    title: str
    chunks: Sequence[Chunk]
    known: Known


@dataclass(frozen=True, slots=True)
class _Stored:
    """A document as it is stored."""

    id: int
    version: int
    title: str
    text: str
    media_type: str
    digest: str
    filename: str
    source: Build | None
    """A build that holds this version and whose chunks can be taken over."""


class Builder:
    """Brings builds to hold what their collection holds; safe to run in several processes."""

    def __init__(
        self,
        database: Database,
        blobs: BlobStore,
        *,
        reader: Reader,
        embedders: Embedders,
        splitter: Splitter | None = None,
    ) -> None:
        self._splitter = splitter or Splitter()
        self._database = database
        self._blobs = blobs
        self._reader = reader
        self._embedders = embedders

    def fill(self, whole: Collection, into: Build) -> Generator[Built | Embedded, None, None]:
        """Add every document that the build lacks, each in one transaction.

        What was yielded as `Built` is durable and is not embedded again. Documents that are written
        meanwhile come in by their own way.

        Raises:
            Conflict: the build was cancelled or retired meanwhile.
            InvalidConfiguration: its embedder is not what the recipe says.
            StorageFailed: the disk is full; run it again later.
        """
        self._embedders.of(into.recipe, collection=whole.name)
        window: list[_Draft] = []
        for draft in prefetch(self._drafts(whole, into), READ_AHEAD):
            window.append(draft)
            if sum(len(each.chunks) for each in window) >= WINDOW_CHUNKS:
                yield from self._finish(whole, into, window)
                window = []
        yield from self._finish(whole, into, window)

    def _drafts(self, whole: Collection, into: Build) -> Iterator[_Draft]:
        after = 0
        while True:
            with self._database.read() as connection:
                page = build_state.missing(connection, into, after=after, limit=PAGE_DOCUMENTS)
            if not page:
                return
            for number in page:
                draft = self._draft(whole, into, number)
                if draft is not None:
                    yield draft
            after = page[-1]

    def _draft(self, whole: Collection, into: Build, number: int) -> _Draft | None:
        with self._database.read() as connection:
            stored = _stored(connection, into, number)
            if stored is None:
                return None
            stored_chunks = _chunks(connection, stored.source, number) if stored.source else None
            known = _known(connection, into, number)
        if stored_chunks is not None and self._fits(stored_chunks, into):
            return _Draft(stored.id, stored.version, stored.title, stored_chunks, known)
        chunks = self._split(whole, into, stored)
        return _Draft(stored.id, stored.version, stored.title, chunks, known)

    def _fits(self, chunks: Sequence[Chunk], into: Build) -> bool:
        """True if this build's embedder reads chunks, cut for another one, to their end."""
        embedder = self._embedders.of(into.recipe)
        return all(len(embedder.token_spans(one.text)) <= embedder.max_tokens for one in chunks)

    def _split(self, whole: Collection, into: Build, stored: _Stored) -> Sequence[Chunk]:
        content = self._read(stored)
        return self._splitter.split(
            content,
            self._embedders.of(into.recipe, collection=whole.name).token_spans(content.text),
            max_tokens=into.recipe.chunk_tokens,
            overlap_tokens=into.recipe.chunk_overlap_tokens,
        )

    def _read(self, stored: _Stored) -> Document:
        """Read the bytes again for their structure; the text stays the one that is stored."""
        try:
            content = self._reader.read(self._blobs.path(stored.digest), filename=stored.filename)
        except (UnreadableDocument, NotFound, OSError) as error:
            logger.warning("%r is split by its text alone: %s", stored.filename, error)
        else:
            if content.text == stored.text:
                return content
        # Citations point into the stored text: another release's reading of the bytes must not
        # move them.
        whole_text = Block("paragraph", 0, len(stored.text))
        blocks = (whole_text,) if stored.text else ()
        return Document(stored.text, blocks, stored.media_type, title=stored.title)

    def _finish(
        self, whole: Collection, into: Build, window: Sequence[_Draft]
    ) -> Iterator[Built | Embedded]:
        vectors = yield from embed(
            [
                (into.recipe, [in_context(one, draft.title) for one in draft.chunks], draft.known)
                for draft in window
            ],
            self._embedders,
        )
        for draft, rows in zip(window, vectors, strict=True):
            if self._commit(whole, into, draft, vectors=rows):
                yield Built(draft.document_id, len(draft.chunks))

    def _commit(self, whole: Collection, into: Build, draft: _Draft, *, vectors: Vectors) -> bool:
        """Add a document unless it was changed, removed, or added by another process meanwhile."""
        with self._database.write(lock=whole.id) as connection:
            current = build_state.get(connection, whole.id, into.id)
            if current.state not in build_state.FOLLOWED:
                raise Conflict(f"Build {into.id} of {whole.name!r} was retired meanwhile")
            version = connection.execute(
                select(document.c.version).where(document.c.id == draft.document_id)
            ).scalar()
            held = connection.execute(
                select(build_document.c.version).where(
                    build_document.c.build_id == into.id,
                    build_document.c.document_id == draft.document_id,
                )
            ).scalar()
            if version != draft.version or held is not None:
                return False
            insert_pieces(
                connection,
                into,
                draft.document_id,
                version=draft.version,
                pieces=Pieces(draft.chunks, vectors),
            )
        return True


def _stored(connection: Connection, into: Build, number: int) -> _Stored | None:
    row = connection.execute(
        select(document, file.c.filename)
        .join(file, file.c.id == document.c.file_id)
        .where(document.c.id == number)
    ).first()
    if row is None:
        return None
    pieces = connection.execute(
        select(document_text.c.text)
        .where(document_text.c.document_id == number)
        .order_by(document_text.c.piece)
    ).scalars()
    return _Stored(
        id=number,
        version=row.version,
        title=row.title,
        text="".join(pieces),
        media_type=row.media_type,
        digest=row.digest,
        filename=row.filename,
        source=_source(connection, into, row),
    )


def _source(connection: Connection, into: Build, row: Row[tuple[int, ...]]) -> Build | None:
    """Return a build whose chunks of the document can be taken: they are cut the same way."""
    holding = set(
        connection.execute(
            select(build_document.c.build_id).where(
                build_document.c.document_id == row.id, build_document.c.version == row.version
            )
        ).scalars()
    )
    for each in build_state.followed(connection, into.collection_id):
        if each.id in holding and each.recipe.chunking == into.recipe.chunking:
            return each
    return None


def _chunks(connection: Connection, source: Build, number: int) -> list[Chunk]:
    rows = connection.execute(
        select(chunk)
        .where(chunk.c.build_id == source.id, chunk.c.document_id == number)
        .order_by(chunk.c.ordinal)
    )
    return [
        Chunk(
            ordinal=row.ordinal,
            start_char=row.start_char,
            end_char=row.end_char,
            text=row.text,
            tokens=row.tokens,
            heading=row.heading,
            page=row.page,
        )
        for row in rows
    ]


def _known(connection: Connection, into: Build, number: int) -> Known:
    """Return vectors of the same model that other builds hold of the document."""
    identity = into.recipe.embedder_identity
    alike = [
        each.id
        for each in build_state.followed(connection, into.collection_id)
        if each.recipe.embedder_identity == identity
    ]
    rows = connection.execute(
        select(chunk.c.heading, chunk.c.text, chunk.c.vector, document.c.title)
        .join(document, document.c.id == chunk.c.document_id)
        .where(chunk.c.document_id == number, chunk.c.build_id.in_(alike))
    )
    return {
        (row.heading or row.title, row.text): np.frombuffer(row.vector, "<f2").astype(np.float32)
        for row in rows
    }

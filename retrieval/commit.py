"""One document, one transaction: row, text, chunks, vectors and changes, all or nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from sqlalchemy import Connection, Row, delete, insert, select, update

from infra.artifacts.blobs import Blob
from infra.contracts import Chunk, Document, Vectors
from infra.database.schema import change, chunk, collection, document, document_text, file
from infra.errors import Conflict, NotFound
from infra.security import new_id
from retrieval.collections import Collection
from retrieval.files import doom, insert_file

PIECE_CHARACTERS = 8192
"""Of `document_text`: a span is read without reading the book."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A document ready to be committed."""

    uri: str
    filename: str
    blob: Blob
    content: Document
    metadata: Mapping[str, Any]
    chunks: Sequence[Chunk]
    vectors: Vectors
    """`(len(chunks), dimension)`, unit rows."""


@dataclass(frozen=True, slots=True)
class Committed:
    """The acknowledgement: from here on the document survives anything but a delete."""

    uri: str
    file_id: str
    version: int
    chunks: int
    sequence: int
    """A search with `min_sequence` of this sees the document."""


def commit_document(
    connection: Connection, into: Collection, prepared: Prepared, *, file_id: str | None = None
) -> Committed | None:
    """Write a new or changed document within the caller's write transaction.

    Returns None when another writer has committed the very same bytes meanwhile.

    Args:
        connection: a write transaction that holds the collection's lock.
        into: the collection.
        prepared: what to write.
        file_id: the uploaded file it is read from; None when the source brought its own bytes.

    Raises:
        NotFound: an attached document was removed meanwhile.
        Conflict: the collection was removed or rebuilt meanwhile.
    """
    _check_collection(connection, into)
    row = connection.execute(
        select(document).where(
            document.c.collection_id == into.id, document.c.source == prepared.uri
        )
    ).first()
    if file_id is not None and row is None:
        raise NotFound("document", file_id)
    values = _values(prepared)
    if row is not None and row.status == "completed" and row.digest == prepared.blob.digest:
        return None
    if row is None:
        file_id = new_id("file-")
        insert_file(
            connection, file_id, filename=prepared.filename, purpose="ingest", blob=prepared.blob
        )
        number, version = _insert(connection, into, file_id, {"source": prepared.uri, **values}), 1
    else:
        number, version = row.id, row.version + 1
        if file_id is not None:  # its attributes may have been changed while it was read
            values["metadata"] = {**prepared.metadata, **row.metadata}
        if file_id is None:
            _replace_bytes(connection, row, prepared)
        file_id = row.file_id
        connection.execute(
            update(document).where(document.c.id == number).values(version=version, **values)
        )
        remove_contents(connection, into.build_id, number)
    _insert_text(connection, number, prepared.content.text)
    ids = _insert_chunks(connection, into.build_id, number, prepared)
    sequence = append_changes(connection, into.build_id, "upsert", ids)
    touch(connection, into.id)
    return Committed(prepared.uri, file_id, version, len(ids), sequence)


def remove_contents(connection: Connection, build_id: int, document_id: int) -> int:
    """Delete a document's text and chunks and log it; returns the last sequence, 0 for none."""
    ids = (
        connection.execute(
            delete(chunk).where(chunk.c.document_id == document_id).returning(chunk.c.id)
        )
        .scalars()
        .all()
    )
    connection.execute(delete(document_text).where(document_text.c.document_id == document_id))
    return append_changes(connection, build_id, "delete", ids)


def append_changes(
    connection: Connection, build_id: int, operation: str, chunk_ids: Sequence[int]
) -> int:
    """Append to the change log that views replay; returns the last sequence, 0 for no change."""
    if not chunk_ids:
        return 0
    sequences = connection.execute(
        insert(change).returning(change.c.sequence),
        [
            {"build_id": build_id, "operation": operation, "chunk_id": number}
            for number in sorted(chunk_ids)
        ],
    )
    return int(max(sequences.scalars()))


def touch(connection: Connection, collection_id: int) -> None:
    """Note that the collection was written to."""
    connection.execute(
        update(collection)
        .where(collection.c.id == collection_id)
        .values(last_active_at=datetime.now(UTC))
    )


def _check_collection(connection: Connection, into: Collection) -> None:
    live = connection.execute(
        select(collection.c.live_build_id).where(collection.c.id == into.id)
    ).scalar()
    if live != into.build_id:
        raise Conflict(f"Collection {into.name!r} was removed or rebuilt meanwhile")


def _values(prepared: Prepared) -> dict[str, Any]:
    return {
        "status": "completed",
        "error_code": None,
        "error_message": None,
        "digest": prepared.blob.digest,
        "title": prepared.content.title,
        "media_type": prepared.content.media_type,
        "metadata": dict(prepared.metadata),
        "characters": len(prepared.content.text),
        "updated_at": datetime.now(UTC),
    }


def _insert(connection: Connection, into: Collection, file_id: str, values: dict[str, Any]) -> int:
    number: int = connection.execute(
        insert(document)
        .values(
            collection_id=into.id,
            file_id=file_id,
            version=1,
            created_at=datetime.now(UTC),
            **values,
        )
        .returning(document.c.id)
    ).scalar_one()
    return number


def _replace_bytes(connection: Connection, row: Row[Any], prepared: Prepared) -> None:
    old = connection.execute(select(file.c.digest).where(file.c.id == row.file_id)).scalar_one()
    connection.execute(
        update(file)
        .where(file.c.id == row.file_id)
        .values(digest=prepared.blob.digest, bytes=prepared.blob.size, filename=prepared.filename)
    )
    if old != prepared.blob.digest:
        doom(connection, old)


def _insert_text(connection: Connection, document_id: int, text: str) -> None:
    pieces = [
        {
            "document_id": document_id,
            "piece": number,
            "text": text[start : start + PIECE_CHARACTERS],
        }
        for number, start in enumerate(range(0, len(text), PIECE_CHARACTERS))
    ]
    if pieces:
        connection.execute(insert(document_text), pieces)


def _insert_chunks(
    connection: Connection, build_id: int, document_id: int, prepared: Prepared
) -> list[int]:
    if not prepared.chunks:
        return []
    halves = prepared.vectors.astype("<f2")
    rows = [
        {
            "build_id": build_id,
            "document_id": document_id,
            "ordinal": piece.ordinal,
            "start_char": piece.start_char,
            "end_char": piece.end_char,
            "tokens": piece.tokens,
            "page": piece.page,
            "heading": piece.heading,
            "text": piece.text,
            "vector": np.ascontiguousarray(half).tobytes(),
        }
        for piece, half in zip(prepared.chunks, halves, strict=True)
    ]
    return list(connection.execute(insert(chunk).returning(chunk.c.id), rows).scalars())

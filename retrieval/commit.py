"""One document, one transaction: row, text, chunks, vectors and changes, all or nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
from sqlalchemy import Connection, Row, delete, insert, select, update

from infra.artifacts.blobs import Blob
from infra.contracts import Chunk, Document, Readers, Vectors
from infra.database.schema import (
    build,
    build_document,
    change,
    chunk,
    collection,
    document,
    document_text,
    file,
)
from infra.errors import Conflict, InvalidConfiguration, NotFound
from infra.security import new_id
from retrieval import access
from retrieval.build_state import Build, followed
from retrieval.collections import Collection
from retrieval.files import doom, doom_unreferenced, insert_file
from retrieval.quotes import doom_quotes

PIECE_CHARACTERS = 8192
"""Of `document_text`: a span is read without reading the book."""


class BuildsChanged(Conflict):
    """The collection has a build that the document was not prepared for: prepare it again."""


@dataclass(frozen=True, slots=True)
class Pieces:
    """A document as one build holds it."""

    chunks: Sequence[Chunk]
    vectors: Vectors
    """`(len(chunks), dimension)`, unit rows."""


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
    """`(len(chunks), dimension)`, unit rows; these are for the build it is committed to."""
    others: Mapping[int, Pieces] = field(default_factory=dict)
    """For the other builds of the collection, by number."""
    readers: Readers | None = None
    """Who may read it; None leaves that as it is, or as the collection says."""


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
    """Write a new or changed document to every build, within the caller's write transaction.

    A build that is still being built may be left out: it will find that it lacks the document.
    Returns None when another writer has committed the very same bytes meanwhile.

    Args:
        connection: a write transaction that holds the collection's lock.
        into: the collection.
        prepared: what to write.
        file_id: the uploaded file it is read from; None when the source brought its own bytes.

    Raises:
        NotFound: an attached document was removed meanwhile.
        BuildsChanged: it was not prepared for a build that answers, or that stands by to.
        Conflict: the collection was removed meanwhile, or the document is another tenant's.
    """
    pieces = {into.build_id: Pieces(prepared.chunks, prepared.vectors), **prepared.others}
    builds = _builds(connection, into, pieces)
    row = connection.execute(
        select(document).where(
            document.c.collection_id == into.id, document.c.source == prepared.uri
        )
    ).first()
    if file_id is not None and row is None:
        raise NotFound("document", file_id)
    if row is not None and row.status == "completed" and row.digest == prepared.blob.digest:
        return None
    if row is None:
        file_id, number, version = _add(connection, into, prepared)
    else:
        number, version = row.id, row.version + 1
        _replace(connection, into, prepared, row=row, is_upload=file_id is not None)
        file_id = row.file_id
    _insert_text(connection, number, prepared.content.text)
    sequences = [
        insert_pieces(connection, each, number, version=version, pieces=pieces[each.id])
        for each in builds
        if each.id in pieces
    ]
    touch(connection, into.id)
    chunks = len(pieces[builds[0].id].chunks)
    return Committed(prepared.uri, file_id, version, chunks, sequences[0])


def _add(connection: Connection, into: Collection, prepared: Prepared) -> tuple[str, int, int]:
    """Add a document; returns its public id, its number, and version 1."""
    file_id = new_id("file-")
    settled = access.settle(into, prepared.readers)
    insert_file(
        connection,
        file_id,
        filename=prepared.filename,
        purpose="ingest",
        blob=prepared.blob,
        tenant=settled.tenant,
    )
    values = {"source": prepared.uri, **_values(prepared)}
    number = _insert(connection, into, file_id, values)
    access.write(connection, number, settled)
    return file_id, number, 1


def _replace(
    connection: Connection, into: Collection, prepared: Prepared, *, row: Row[Any], is_upload: bool
) -> None:
    """Make a document the next version of itself, without contents yet."""
    values = _values(prepared)
    if prepared.readers is not None:
        settled = access.settle(into, prepared.readers)
        require_same_tenant(prepared.uri, row.tenant, settled)
        access.write(connection, row.id, settled)
    if is_upload:  # its attributes may have been changed while it was read
        values["metadata"] = {**prepared.metadata, **row.metadata}
    else:
        _replace_bytes(connection, row, prepared)
    connection.execute(
        update(document).where(document.c.id == row.id).values(version=row.version + 1, **values)
    )
    remove_contents(connection, row.id)


def insert_pieces(
    connection: Connection, into: Build, document_id: int, *, version: int, pieces: Pieces
) -> int:
    """Add a version of a document to a build that holds none; returns the last sequence."""
    connection.execute(
        insert(build_document).values(build_id=into.id, document_id=document_id, version=version)
    )
    ids = _insert_chunks(connection, into, document_id, pieces)
    return append_changes(connection, into.id, "upsert", ids)


def remove_contents(connection: Connection, document_id: int) -> int:
    """Delete a document's text, and its chunks in every build, and log it in each build's log.

    Returns the last sequence in the log of the live build, 0 for none.
    """
    removed = connection.execute(
        delete(chunk)
        .where(chunk.c.document_id == document_id)
        .returning(chunk.c.id, chunk.c.build_id)
    ).all()
    connection.execute(delete(build_document).where(build_document.c.document_id == document_id))
    connection.execute(delete(document_text).where(document_text.c.document_id == document_id))
    ids: dict[int, list[int]] = {}
    for row in removed:
        ids.setdefault(row.build_id, []).append(row.id)
    return append_to_each(connection, "delete", ids)


def insert_attached(
    connection: Connection, into: Collection, stored: Row[Any], *, metadata: Mapping[str, Any]
) -> int:
    """Add the document of an uploaded file that is yet to be read; returns its number."""
    now = datetime.now(UTC)
    number: int = connection.execute(
        insert(document)
        .values(
            collection_id=into.id,
            file_id=stored.id,
            source=f"upload:{stored.id}/{stored.filename}",
            status="in_progress",
            digest=stored.digest,
            version=0,
            metadata=dict(metadata),
            created_at=now,
            updated_at=now,
        )
        .returning(document.c.id)
    ).scalar_one()
    return number


def log_document(connection: Connection, document_id: int) -> int:
    """Log every chunk of a document as changed in each build, so that views read it again."""
    ids: dict[int, list[int]] = {}
    for row in connection.execute(
        select(chunk.c.id, chunk.c.build_id).where(chunk.c.document_id == document_id)
    ):
        ids.setdefault(row.build_id, []).append(row.id)
    return append_to_each(connection, "upsert", ids)


def delete_row(connection: Connection, number: int) -> int:
    """Remove a document within a write transaction; returns the sequence of the last change."""
    row = connection.execute(
        select(document.c.file_id, document.c.collection_id, file.c.purpose)
        .join(file, file.c.id == document.c.file_id)
        .where(document.c.id == number)
    ).first()
    if row is None:
        return 0
    sequence = remove_contents(connection, number)
    connection.execute(delete(document).where(document.c.id == number))
    doom_quotes(connection, [row.file_id])
    if row.purpose == "ingest":
        doom_unreferenced(connection, [row.file_id])
    touch(connection, row.collection_id)
    return sequence


def append_to_each(
    connection: Connection, operation: str, chunk_ids: Mapping[int, Sequence[int]]
) -> int:
    """Append to the logs of several builds of one collection, given by number, the live one first.

    Returns the last sequence of the live build, 0 if nothing was logged for it.
    """
    states = connection.execute(
        select(build.c.id, build.c.state).where(build.c.id.in_(list(chunk_ids)))
    ).all()
    answered = 0
    for row in sorted(states, key=lambda row: (row.state != "live", row.id)):
        sequence = append_changes(connection, row.id, operation, chunk_ids[row.id])
        if row.state == "live":
            answered = sequence
    return answered


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


def require_same_tenant(uri: str, tenant: str | None, given: Readers) -> None:
    """Refuse to hand one tenant's document to another because both read the same source.

    Raises:
        OtherTenant: the document there is belongs to another tenant than the one that is given.
    """
    if given.tenant != tenant:
        raise access.OtherTenant(
            f"{uri!r} is in the collection for the tenant {tenant!r}; ingest it for"
            f" {given.tenant!r} into another collection, or delete it first"
        )


def touch(connection: Connection, collection_id: int) -> None:
    """Note that the collection was written to."""
    connection.execute(
        update(collection)
        .where(collection.c.id == collection_id)
        .values(last_active_at=datetime.now(UTC))
    )


def _builds(
    connection: Connection, into: Collection, prepared: Mapping[int, Pieces]
) -> list[Build]:
    builds = followed(connection, into.id)
    if not builds:
        raise Conflict(f"Collection {into.name!r} was removed meanwhile")
    if any(each.id not in prepared and each.state != "building" for each in builds):
        raise BuildsChanged(f"Collection {into.name!r} was rebuilt meanwhile; try again")
    return builds


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
    connection: Connection, into: Build, document_id: int, pieces: Pieces
) -> list[int]:
    if not pieces.chunks:
        return []
    expected = (len(pieces.chunks), into.recipe.dimension)
    if pieces.vectors.shape != expected:
        raise InvalidConfiguration(
            f"Vectors of shape {pieces.vectors.shape!r} for a build that takes {expected!r}; "
            "rebuild the collection with the new embedder"
        )
    halves = pieces.vectors.astype("<f2")
    rows = [
        {
            "build_id": into.id,
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
        for piece, half in zip(pieces.chunks, halves, strict=True)
    ]
    return list(connection.execute(insert(chunk).returning(chunk.c.id), rows).scalars())

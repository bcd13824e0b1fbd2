"""Snapshots: a collection as it was at one moment, as files that restore it without embedding."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Connection, Table, func, select

from infra.artifacts.blobs import BlobStore
from infra.database.engine import Database
from infra.database.schema import change, chunk, document, document_text, file
from infra.errors import InvalidRequest, NotFound, NotReady, StorageFailed
from infra.plugins import require
from retrieval import access
from retrieval.collections import Collection

FORMAT = 1
PAGE_ROWS = 2_000
"""Rows in memory at once, and in one row group of a file."""
VANISHED_ROUNDS = 20
"""Moments tried, if documents are deleted before their bytes are at hand."""
CHUNK_COLUMNS = (
    *("document_id", "ordinal", "start_char", "end_char"),
    *("tokens", "page", "heading", "text", "vector"),
)
KEPT_APART = frozenset({"id", "collection_id", "file_id", "source", "version", "status"})
"""Columns of a document with a column of their own in the file; the others are one JSON text."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a snapshot holds, `manifest.json` in it."""

    format: int
    collection: str
    attributes: Mapping[str, Any]
    recipe: Mapping[str, Any]
    sequence: int
    """The last change in the log of the live build that it includes."""
    documents: int
    chunks: int
    with_bytes: bool
    taken_at: str
    tenant: str | None = None
    """Of the collection; each document has its own tenant and list in `other`."""

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read it.

        Raises:
            InvalidRequest: this is no snapshot, or one of a newer release.
        """
        try:
            values = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
            found = cls(**values)
        except (OSError, ValueError, TypeError) as error:
            raise InvalidRequest(
                f"{folder.name!r} is no snapshot of a collection: {error}"
            ) from None
        if found.format != FORMAT:
            raise InvalidRequest(
                f"The snapshot has format {found.format!r}, this release reads {FORMAT}; upgrade"
            )
        return found


class _Vanished(Exception):
    """The bytes of a document were removed after the moment of the snapshot."""


def write(
    database: Database,
    blobs: BlobStore,
    whole: Collection,
    folder: Path,
    *,
    with_bytes: bool = True,
) -> Manifest:
    """Write the collection, as it is at one moment, to an empty folder; writes go on meanwhile.

    `documents.parquet`, `texts.parquet`, `chunks.parquet` (vectors as float16), the files as they
    came under `files/` by digest, and `manifest.json`. Memory is bounded.

    Raises:
        NotFound: the collection was removed meanwhile.
        NotReady: documents were deleted faster than their bytes could be kept.
        StorageFailed: the disk is full.
    """
    for _ in range(VANISHED_ROUNDS):
        try:
            with database.read() as connection:
                return _write(connection, blobs, whole, folder, with_bytes=with_bytes)
        except _Vanished:
            for entry in folder.iterdir():
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    raise NotReady(f"{whole.name!r} loses documents faster than they are copied; try again")


def _write(
    connection: Connection, blobs: BlobStore, whole: Collection, folder: Path, *, with_bytes: bool
) -> Manifest:
    sequence = connection.execute(
        select(func.max(change.c.sequence)).where(change.c.build_id == whole.build_id)
    ).scalar()
    if with_bytes:
        _keep_bytes(connection, blobs, whole, folder / "files")
    documents = _write_table(
        folder / "documents.parquet", _document_schema(), _documents(connection, whole)
    )
    _write_table(folder / "texts.parquet", _text_schema(), _texts(connection, whole))
    chunks = _write_table(
        folder / "chunks.parquet",
        _chunk_schema(whole.recipe.dimension),
        _chunks(connection, whole),
    )
    manifest = Manifest(
        format=FORMAT,
        collection=whole.name,
        attributes=dict(whole.attributes),
        recipe=whole.recipe.as_dict(),
        sequence=int(sequence or 0),
        documents=documents,
        chunks=chunks,
        with_bytes=with_bytes,
        taken_at=datetime.now(UTC).isoformat(),
        tenant=whole.tenant,
    )
    values = {name: getattr(manifest, name) for name in Manifest.__dataclass_fields__}
    (folder / "manifest.json").write_text(json.dumps(values, indent=1, sort_keys=True))
    return manifest


def _keep_bytes(connection: Connection, blobs: BlobStore, whole: Collection, folder: Path) -> None:
    """Link the files as they came, first of all: a deletion may remove them any moment."""
    folder.mkdir()
    digests = connection.execute(
        select(file.c.digest)
        .distinct()
        .join(document, document.c.file_id == file.c.id)
        .where(document.c.collection_id == whole.id)
    ).scalars()
    for digest in digests:
        try:
            source = blobs.path(digest)
            _copy(source, folder / digest.removeprefix("sha256:"))
        except (NotFound, FileNotFoundError):
            raise _Vanished from None


def _copy(source: Path, to: Path) -> None:
    try:
        with suppress(OSError):
            os.link(source, to)
            return
        shutil.copyfile(source, to)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StorageFailed(f"{to.name!r} cannot be kept: {error.strerror}") from error


def _write_table(path: Path, schema: Any, pages: Iterator[Mapping[str, Sequence[Any]]]) -> int:
    pa, parquet = require("pyarrow", extra="data"), require("pyarrow.parquet", extra="data")
    rows = 0
    try:
        with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
            for page in pages:
                batch = pa.record_batch([page[name] for name in schema.names], schema=schema)
                writer.write_batch(batch)
                rows += batch.num_rows
    except OSError as error:
        raise StorageFailed(f"{path.name!r} cannot be written: {error}") from error
    return rows


def _document_schema() -> Any:
    pa = require("pyarrow", extra="data")
    return pa.schema(
        [
            pa.field("number", pa.int64()),
            *(pa.field(name, pa.string()) for name in ("file_id", "source", "status", "digest")),
            pa.field("version", pa.int64()),
            *(pa.field(name, pa.string()) for name in ("filename", "purpose")),
            pa.field("bytes", pa.int64()),
            pa.field("other", pa.string()),
        ]
    )


def _text_schema() -> Any:
    pa = require("pyarrow", extra="data")
    return pa.schema([("number", pa.int64()), ("piece", pa.int32()), ("text", pa.string())])


def _chunk_schema(dimension: int) -> Any:
    pa = require("pyarrow", extra="data")
    numbers = ("document_id", "ordinal", "start_char", "end_char", "tokens", "page")
    return pa.schema(
        [
            *(pa.field(name, pa.int64()) for name in numbers),
            *(pa.field(name, pa.string()) for name in ("heading", "text")),
            pa.field("vector", pa.list_(pa.float16(), dimension)),
        ]
    )


def _documents(connection: Connection, whole: Collection) -> Iterator[dict[str, list[Any]]]:
    others = [column for column in document.c if column.name not in KEPT_APART]
    statement = (
        select(document, file.c.filename, file.c.purpose, file.c.bytes, file.c.digest.label("kept"))
        .join(file, file.c.id == document.c.file_id)
        .where(document.c.collection_id == whole.id)
    )
    for rows in _pages(connection, statement, document):
        lists = access.lists(connection, [row.id for row in rows])
        yield {
            "number": [row.id for row in rows],
            **{
                name: [getattr(row, name) for row in rows]
                for name in (
                    "file_id",
                    "source",
                    "status",
                    "version",
                    "filename",
                    "purpose",
                    "bytes",
                )
            },
            "digest": [row.kept for row in rows],
            "other": [
                json.dumps(
                    {column.name: _plain(row._mapping[column]) for column in others}
                    | {"allow": lists.get(row.id, ())}
                )
                for row in rows
            ],
        }


def _texts(connection: Connection, whole: Collection) -> Iterator[dict[str, list[Any]]]:
    rows = connection.execution_options(yield_per=PAGE_ROWS).execute(
        select(document_text)
        .join(document, document.c.id == document_text.c.document_id)
        .where(document.c.collection_id == whole.id)
        .order_by(document_text.c.document_id, document_text.c.piece)
    )
    for part in rows.partitions(PAGE_ROWS // 8):
        yield {
            "number": [row.document_id for row in part],
            "piece": [row.piece for row in part],
            "text": [row.text for row in part],
        }


def _chunks(connection: Connection, whole: Collection) -> Iterator[dict[str, Any]]:
    pa = require("pyarrow", extra="data")
    statement = select(chunk).where(chunk.c.build_id == whole.build_id)
    for rows in _pages(connection, statement, chunk):
        page = {name: [getattr(row, name) for row in rows] for name in CHUNK_COLUMNS}
        values = np.frombuffer(b"".join(page["vector"]), dtype="<f2")
        flat = pa.array(values, type=pa.float16())
        yield {**page, "vector": pa.FixedSizeListArray.from_arrays(flat, whole.recipe.dimension)}


def _pages(connection: Connection, statement: Any, table: Table) -> Iterator[Sequence[Any]]:
    after = 0
    while True:
        rows = connection.execute(
            statement.where(table.c.id > after).order_by(table.c.id).limit(PAGE_ROWS)
        ).all()
        if not rows:
            return
        yield rows
        after = rows[-1].id


def _plain(value: Any) -> Any:
    return {"moment": value.isoformat()} if isinstance(value, datetime) else value

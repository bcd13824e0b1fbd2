"""Brings a snapshot up as a collection: its texts, chunks and vectors, nothing embedded again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import insert, select

from infra.artifacts.blobs import Blob, BlobStore
from infra.contracts import Readers
from infra.database.engine import Database
from infra.database.schema import build_document, chunk, document, document_text, file
from infra.errors import Conflict, InvalidRequest, NotFound, RagstoneError
from infra.plugins import require
from infra.security import new_id
from retrieval import access
from retrieval.collections import Collection, Collections
from retrieval.commit import append_changes
from retrieval.files import BLOBS_LOCK
from retrieval.recipe import Recipe
from retrieval.snapshot import CHUNK_COLUMNS, PAGE_ROWS, Manifest


class Restorer:
    """Restores snapshots; what is not finished is a collection named `restoring ...`."""

    def __init__(self, database: Database, blobs: BlobStore) -> None:
        self._database = database
        self._blobs = blobs
        self._collections = Collections(database)

    def restore(self, folder: Path, name: str, recipe: Recipe) -> Collection:
        """Make a collection from the files of a snapshot, page by page; named when it is whole.

        Args:
            folder: what `snapshot.write` wrote; only read.
            name: of the new collection.
            recipe: the snapshot's, as its embedder is opened here.

        Raises:
            Conflict: the name is taken.
            InvalidRequest: the files are not a snapshot, or not whole.
            StorageFailed: the disk is full; nothing by that name is there.
        """
        manifest = Manifest.read(folder)
        try:
            self._collections.get(name)
        except NotFound:
            pass
        else:
            raise Conflict(f"A collection named {name!r} exists already; choose another name")
        partial = self._collections.create(
            f"restoring {new_id('')}",
            recipe,
            attributes=manifest.attributes,
            tenant=manifest.tenant,
        )
        try:
            numbers = self._add_documents(folder, partial)
            self._add_texts(folder, numbers)
            chunks = self._add_chunks(folder, partial, numbers)
            if (len(numbers), chunks) != (manifest.documents, manifest.chunks):
                raise InvalidRequest(
                    f"The snapshot holds {len(numbers)} documents and {chunks} chunks, its "
                    f"manifest says {manifest.documents} and {manifest.chunks}; take it again"
                )
            return self._collections.update(partial.public_id, new_name=name)
        except RagstoneError:
            self._collections.delete(partial.public_id)
            raise

    def _add_documents(self, folder: Path, into: Collection) -> dict[int, int]:
        """Add files and documents; returns the numbers they have here by those they had."""
        numbers: dict[int, int] = {}
        for page in _pages(folder / "documents.parquet"):
            for row in page:
                self._keep_bytes(folder, row["digest"])
            with self._database.write(lock=into.id) as connection:
                self._database.lock(connection, BLOBS_LOCK, shared=True)
                for row in page:
                    self._keep_bytes(folder, row["digest"])  # a sweep may have run since
                    file_id, others = row["file_id"], json.loads(row["other"])
                    if connection.execute(select(file.c.id).where(file.c.id == file_id)).first():
                        file_id = new_id("file-")
                    connection.execute(
                        insert(file).values(
                            id=file_id,
                            filename=row["filename"],
                            purpose="ingest",
                            digest=row["digest"],
                            bytes=row["bytes"],
                            tenant=others.get("tenant"),
                            created_at=datetime.now(UTC),
                        )
                    )
                    numbers[row["number"]] = connection.execute(
                        insert(document)
                        .values(
                            {
                                **_others(others),
                                "collection_id": into.id,
                                "file_id": file_id,
                                **{key: row[key] for key in ("source", "status", "version")},
                            }
                        )
                        .returning(document.c.id)
                    ).scalar_one()
                    readers = Readers(others.get("tenant"), tuple(others.get("allow", ())))
                    access.write(connection, numbers[row["number"]], readers)
                held = [
                    {
                        "build_id": into.build_id,
                        "document_id": numbers[row["number"]],
                        "version": row["version"],
                    }
                    for row in page
                    if row["version"]
                ]
                if held:
                    connection.execute(insert(build_document), held)
        return numbers

    def _keep_bytes(self, folder: Path, digest: str) -> None:
        path = folder / "files" / digest.removeprefix("sha256:")
        if digest in self._blobs or not path.is_file():  # a snapshot may leave the files out
            return
        stored: Blob = self._blobs.put_file(path)
        if stored.digest != digest:
            raise InvalidRequest(f"{path.name!r} is not the file of that digest; take it again")

    def _add_texts(self, folder: Path, numbers: Mapping[int, int]) -> None:
        for page in _pages(folder / "texts.parquet"):
            rows = [
                {
                    "document_id": numbers[row["number"]],
                    "piece": row["piece"],
                    "text": row["text"],
                }
                for row in page
            ]
            with self._database.write() as connection:
                connection.execute(insert(document_text), rows)

    def _add_chunks(self, folder: Path, into: Collection, numbers: Mapping[int, int]) -> int:
        added = 0
        for page in _pages(folder / "chunks.parquet"):
            rows = [
                {
                    **{name: row[name] for name in CHUNK_COLUMNS},
                    "build_id": into.build_id,
                    "document_id": numbers[row["document_id"]],
                    "vector": np.asarray(row["vector"], dtype="<f2").tobytes(),
                }
                for row in page
            ]
            with self._database.write(lock=into.id) as connection:
                ids = connection.execute(insert(chunk).returning(chunk.c.id), rows).scalars().all()
                append_changes(connection, into.build_id, "upsert", ids)
            added += len(rows)
        return added


def _pages(path: Path) -> Iterator[list[dict[str, Any]]]:
    pa, parquet = require("pyarrow", extra="data"), require("pyarrow.parquet", extra="data")
    try:
        with parquet.ParquetFile(path) as stored:
            for batch in stored.iter_batches(batch_size=PAGE_ROWS):
                yield batch.to_pylist()
    except (OSError, pa.ArrowInvalid) as error:
        raise InvalidRequest(f"{path.name!r} of the snapshot cannot be read: {error}") from error


def _others(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: datetime.fromisoformat(value["moment"])
        if isinstance(value, dict) and set(value) == {"moment"}
        else value
        for name, value in values.items()
        if name in document.c
    }

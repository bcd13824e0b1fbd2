"""Files as they came: bytes kept once by digest, removed when nothing refers to them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    and_,
    delete,
    exists,
    insert,
    or_,
    select,
    true,
)

from infra.artifacts.blobs import Blob, BlobStore
from infra.contracts import Access
from infra.database.engine import Database
from infra.database.schema import document, doomed_blob, file
from infra.errors import InvalidRequest, NotFound, StorageFailed
from infra.security import new_id
from retrieval.access import readable
from retrieval.paging import Page, fetch_page
from retrieval.quotes import Quotes

BLOBS_LOCK = 0x626C_6F62  # "blob": shared by those who refer to a blob, held alone to remove one


@dataclass(frozen=True, slots=True)
class StoredFile:
    id: str
    """`file-...`"""
    filename: str
    purpose: str
    digest: str
    bytes: int
    created_at: datetime
    tenant: str | None = None
    """Who uploaded it; None is the operator."""


class Files:
    """Stores uploaded files and hands out their bytes."""

    def __init__(
        self,
        database: Database,
        blobs: BlobStore,
        *,
        access: Access | None = None,
        quotes: Quotes | None = None,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._access = access
        self._quotes = quotes or Quotes(database)

    def seen_by(self, access: Access | None) -> Files:
        """Return the files as a caller sees them; what it adds is its tenant's."""
        return Files(self._database, self._blobs, access=access, quotes=self._quotes)

    def add(
        self, filename: str, pieces: Iterable[bytes], *, purpose: str, max_bytes: int | None = None
    ) -> StoredFile:
        """Store a file; when this returns it is durable.

        Raises:
            TooLarge: more than `max_bytes` came.
        """
        name = clean_filename(filename)
        blob = self._blobs.put(pieces, max_bytes=max_bytes)
        number = new_id("file-")
        with self._database.write() as connection:
            self._database.lock(connection, BLOBS_LOCK, shared=True)
            if blob.digest not in self._blobs:
                raise StorageFailed(f"{name!r} was removed by a deletion of its twin; try again")
            insert_file(
                connection,
                number,
                filename=name,
                purpose=purpose,
                blob=blob,
                tenant=self._access.tenant if self._access else None,
            )
        return self.get(number)

    def get(self, file_id: str) -> StoredFile:
        with self._database.read() as connection:
            row = connection.execute(
                select(file).where(file.c.id == file_id, visible(self._access))
            ).first()
        if row is None:
            raise NotFound("file", file_id)
        return _file(row)

    def list(
        self,
        *,
        purpose: str | None = None,
        limit: int = 100,
        after: str | None = None,
        descending: bool = True,
    ) -> Page[StoredFile]:
        statement = select(file).where(visible(self._access))
        if purpose is not None:
            statement = statement.where(file.c.purpose == purpose)
        with self._database.read() as connection:
            page = fetch_page(
                connection,
                statement,
                key=file.c.number,
                cursor=file.c.id,
                limit=limit,
                after=after,
                before=None,
                descending=descending,
                within=visible(self._access),
            )
        return page.map(_file)

    def path(self, file_id: str) -> Path:
        """Return where the bytes stand, to be read only."""
        return self._blobs.path(self.get(file_id).digest)

    def discard(self, digest: str) -> None:
        """Have bytes removed that were stored for nothing; they stay if a file refers to them."""
        with self._database.write() as connection:
            doom(connection, digest)

    def sweep(self) -> int:
        """Remove the bytes and quotes that deletions left behind; returns how many blobs went."""
        removed = self.sweep_bytes()
        self._quotes.sweep()
        return removed

    def sweep_bytes(self) -> int:
        """Remove the bytes that deletions left behind; returns how many blobs went."""
        removed = 0
        with self._database.read() as connection:
            digests = connection.execute(select(doomed_blob.c.digest)).scalars().all()
        for digest in digests:
            with self._database.write(lock=BLOBS_LOCK) as connection:
                used = connection.execute(
                    select(file.c.id).where(file.c.digest == digest).limit(1)
                ).scalar()
                if used is None:
                    removed += self._blobs.delete(digest)
                connection.execute(delete(doomed_blob).where(doomed_blob.c.digest == digest))
        return removed


def visible(access: Access | None) -> ColumnElement[bool]:
    """Return which rows of `file` a caller may see.

    A file is as open as the most open document made from it; until there is one, it is for the
    tenant that uploaded it.
    """
    if access is None:
        return true()
    used = exists().where(document.c.file_id == file.c.id)
    return or_(used.where(readable(access)), and_(file.c.tenant == access.tenant, ~used))


def insert_file(
    connection: Connection,
    file_id: str,
    *,
    filename: str,
    purpose: str,
    blob: Blob,
    tenant: str | None = None,
) -> None:
    """Add the row of a file whose bytes are stored."""
    connection.execute(
        insert(file).values(
            id=file_id,
            filename=filename,
            purpose=purpose,
            digest=blob.digest,
            bytes=blob.size,
            tenant=tenant,
            created_at=datetime.now(UTC),
        )
    )


def doom_unreferenced(connection: Connection, file_ids: Sequence[str]) -> None:
    """Remove those files that no document refers to, and mark their bytes for `Files.sweep`."""
    for file_id in file_ids:
        row = connection.execute(
            delete(file)
            .where(file.c.id == file_id, ~exists().where(document.c.file_id == file.c.id))
            .returning(file.c.digest)
        ).first()
        if row is not None:
            doom(connection, row.digest)


def doom(connection: Connection, digest: str) -> None:
    """Mark bytes for `Files.sweep`, which removes them unless a file still refers to them."""
    known = connection.execute(
        select(doomed_blob.c.digest).where(doomed_blob.c.digest == digest)
    ).first()
    if known is None:
        connection.execute(insert(doomed_blob).values(digest=digest))


def clean_filename(name: str) -> str:
    """Return the last component of a client's file name; it is a label, never a path."""
    cleaned = "".join(c for c in name.replace("\\", "/").rsplit("/", 1)[-1] if c.isprintable())
    cleaned = cleaned.strip()[:255]
    if not cleaned:
        raise InvalidRequest(f"{name!r} is not a file name", parameter="file")
    return cleaned


def _file(row: Row[Any]) -> StoredFile:
    return StoredFile(
        id=row.id,
        filename=row.filename,
        purpose=row.purpose,
        digest=row.digest,
        bytes=row.bytes,
        created_at=row.created_at,
        tenant=row.tenant,
    )

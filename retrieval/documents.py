"""Documents of a collection: attach, list, read a span, change metadata, delete."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from infra.database.engine import Database
from infra.database.schema import chunk, collection, document, document_text, file
from infra.errors import Conflict, InvalidRequest, NotFound
from retrieval.collections import Collection
from retrieval.commit import PIECE_CHARACTERS, append_to_each, remove_contents, touch
from retrieval.files import doom, doom_unreferenced
from retrieval.paging import Page, fetch_page

MAX_METADATA_KEYS = 64


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """A document as the database knows it."""

    id: int
    collection_id: int
    file_id: str
    """Its public id."""
    filename: str
    source: str
    status: str
    """`in_progress`, `completed`, `failed` or `cancelled`."""
    error_code: str | None
    error_message: str | None
    digest: str
    version: int
    title: str
    media_type: str
    metadata: Mapping[str, Any]
    characters: int
    bytes: int
    chunks: int
    created_at: datetime
    updated_at: datetime


class Documents:
    """Reads and changes the documents of collections; ingest is in `retrieval/ingest.py`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def attach(
        self,
        into: Collection,
        file_id: str,
        *,
        metadata: Mapping[str, Any] | None = None,
        announce: Callable[[Connection], object] = lambda _: None,
    ) -> StoredDocument:
        """Accept an uploaded file; it is `in_progress` until `Ingester.process` has read it.

        Attaching it again gives the document there is, with its metadata replaced if any is given;
        one that had failed or was cancelled is tried again. `announce` is called in the same
        transaction if the file is to be read.

        Raises:
            NotFound: no such file.
            InvalidRequest: the metadata are not flat.
        """
        check_metadata(metadata or {})
        now = datetime.now(UTC)
        with self._database.write(lock=into.id) as connection:
            stored = connection.execute(select(file).where(file.c.id == file_id)).first()
            if stored is None:
                raise NotFound("file", file_id)
            known = connection.execute(
                select(document.c.id, document.c.status).where(
                    document.c.collection_id == into.id, document.c.file_id == file_id
                )
            ).first()
            if known is None:
                connection.execute(
                    insert(document).values(
                        collection_id=into.id,
                        file_id=file_id,
                        source=f"upload:{file_id}/{stored.filename}",
                        status="in_progress",
                        digest=stored.digest,
                        version=0,
                        metadata=dict(metadata or {}),
                        created_at=now,
                        updated_at=now,
                    )
                )
                touch(connection, into.id)
            else:
                connection.execute(
                    update(document)
                    .where(
                        document.c.id == known.id, document.c.status.in_(("failed", "cancelled"))
                    )
                    .values(status="in_progress", error_code=None, error_message=None)
                )
            if known is None or known.status != "completed":
                announce(connection)
        if known is not None and metadata is not None:
            self.update_metadata(into, file_id, metadata)
        return self.get(into, file_id)

    def get(self, within: Collection, file_id: str) -> StoredDocument:
        """Return one document.

        Raises:
            NotFound: the collection holds no such file.
        """
        with self._database.read() as connection:
            row = connection.execute(_select(within).where(document.c.file_id == file_id)).first()
        if row is None:
            raise NotFound("document", file_id)
        return _document(row)

    def list(
        self,
        within: Collection,
        *,
        status: str | None = None,
        limit: int = 20,
        after: str | None = None,
        before: str | None = None,
        descending: bool = True,
    ) -> Page[StoredDocument]:
        statement = _select(within)
        if status is not None:
            statement = statement.where(document.c.status == status)
        with self._database.read() as connection:
            page = fetch_page(
                connection,
                statement,
                key=document.c.id,
                cursor=document.c.file_id,
                limit=limit,
                after=after,
                before=before,
                descending=descending,
                within=document.c.collection_id == within.id,
            )
        return page.map(_document)

    def pending(self) -> Sequence[tuple[str, str]]:
        """Return (collection public id, file id) of what was accepted and not yet read."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(collection.c.public_id, document.c.file_id)
                .join(document, document.c.collection_id == collection.c.id)
                .where(document.c.status == "in_progress")
                .order_by(document.c.id)
            )
            return [(row.public_id, row.file_id) for row in rows]

    def fail(self, within: Collection, file_id: str, *, code: str, message: str) -> None:
        """Note why an attached file could not be read; a version read before stays as it is."""
        with self._database.write(lock=within.id) as connection:
            connection.execute(
                update(document)
                .where(
                    document.c.collection_id == within.id,
                    document.c.file_id == file_id,
                    document.c.status == "in_progress",
                )
                .values(
                    status="failed",
                    error_code=code,
                    error_message=message,
                    updated_at=datetime.now(UTC),
                )
            )

    def cancel(self, within: Collection) -> int:
        """Leave attached files that were not read yet unread; returns how many there were."""
        with self._database.write(lock=within.id) as connection:
            return connection.execute(
                update(document)
                .where(document.c.collection_id == within.id, document.c.status == "in_progress")
                .values(status="cancelled", updated_at=datetime.now(UTC))
            ).rowcount

    def update_metadata(
        self, within: Collection, file_id: str, metadata: Mapping[str, Any]
    ) -> StoredDocument:
        """Replace a document's metadata; nothing is embedded again."""
        check_metadata(metadata)
        with self._database.write(lock=within.id) as connection:
            number = _number(connection, within, file_id)
            connection.execute(
                update(document)
                .where(document.c.id == number)
                .values(metadata=dict(metadata), updated_at=datetime.now(UTC))
            )
            log_document(connection, number)
        return self.get(within, file_id)

    def delete(self, within: Collection, file_id: str) -> int:
        """Remove a document from its collection; returns the sequence of the last change.

        The bytes of an ingested file go with its last document; an uploaded file stays.
        """
        with self._database.write(lock=within.id) as connection:
            return _delete(connection, _number(connection, within, file_id))

    def delete_file(self, file_id: str) -> None:
        """Remove a file and every document made from it, in whatever collection.

        Raises:
            NotFound: no such file.
        """
        with self._database.read() as connection:
            known = connection.execute(select(file.c.id).where(file.c.id == file_id)).first()
            uses = connection.execute(
                select(document.c.id, collection.c.id)
                .join(collection, collection.c.id == document.c.collection_id)
                .where(document.c.file_id == file_id)
            ).all()
        if known is None:
            raise NotFound("file", file_id)
        for number, collection_id in uses:
            with self._database.write(lock=collection_id) as connection:
                _delete(connection, number)
        with self._database.write() as connection:
            still_used = connection.execute(
                select(func.count()).where(document.c.file_id == file_id)
            ).scalar_one()
            if still_used:
                raise Conflict(f"File {file_id!r} was attached again meanwhile; delete it again")
            gone = connection.execute(
                delete(file).where(file.c.id == file_id).returning(file.c.digest)
            ).first()
            if gone is not None:
                doom(connection, gone.digest)

    def read_text(self, file_id: str, version: int, start: int, end: int) -> str | None:
        """Return the stored text at `[start, end)`, or None when that version is gone."""
        if start < 0 or end < start:
            raise InvalidRequest(f"[{start}, {end}) is not a span")
        first, last = start // PIECE_CHARACTERS, max(start, end - 1) // PIECE_CHARACTERS
        with self._database.read() as connection:
            number = connection.execute(
                select(document.c.id)
                .where(document.c.file_id == file_id, document.c.version == version)
                .limit(1)
            ).scalar()
            if number is None:
                return None
            pieces = (
                connection.execute(
                    select(document_text.c.text)
                    .where(
                        document_text.c.document_id == number,
                        document_text.c.piece.between(first, last),
                    )
                    .order_by(document_text.c.piece)
                )
                .scalars()
                .all()
            )
        offset = first * PIECE_CHARACTERS
        return "".join(pieces)[start - offset : end - offset]


def check_metadata(metadata: Mapping[str, Any]) -> None:
    """Refuse metadata that a filter could not compare.

    Raises:
        InvalidRequest: names the key.
    """
    if len(metadata) > MAX_METADATA_KEYS:
        raise InvalidRequest(
            f"{len(metadata)} attributes; at most {MAX_METADATA_KEYS}", parameter="attributes"
        )
    for key, value in metadata.items():
        if not isinstance(value, str | int | float | bool):
            raise InvalidRequest(
                f"Attribute {key!r} is {type(value).__name__}; use a string, number or boolean",
                parameter="attributes",
            )


def log_document(connection: Connection, document_id: int) -> int:
    """Log every chunk of a document as changed in each build, so that views read it again."""
    ids: dict[int, list[int]] = {}
    for row in connection.execute(
        select(chunk.c.id, chunk.c.build_id).where(chunk.c.document_id == document_id)
    ):
        ids.setdefault(row.build_id, []).append(row.id)
    return append_to_each(connection, "upsert", ids)


def _delete(connection: Connection, number: int) -> int:
    row = connection.execute(
        select(document.c.file_id, document.c.collection_id, file.c.purpose)
        .join(file, file.c.id == document.c.file_id)
        .where(document.c.id == number)
    ).first()
    if row is None:
        return 0
    sequence = remove_contents(connection, number)
    connection.execute(delete(document).where(document.c.id == number))
    if row.purpose == "ingest":
        doom_unreferenced(connection, [row.file_id])
    touch(connection, row.collection_id)
    return sequence


def _number(connection: Connection, within: Collection, file_id: str) -> int:
    number = connection.execute(
        select(document.c.id).where(
            document.c.collection_id == within.id, document.c.file_id == file_id
        )
    ).scalar()
    if number is None:
        raise NotFound("document", file_id)
    return int(number)


def _select(within: Collection) -> Any:
    chunks = (
        select(func.count())
        .where(chunk.c.build_id == within.build_id, chunk.c.document_id == document.c.id)
        .scalar_subquery()
    )
    return (
        select(document, file.c.filename, file.c.bytes, chunks.label("chunks"))
        .join(file, file.c.id == document.c.file_id)
        .where(document.c.collection_id == within.id)
    )


def _document(row: Row[Any]) -> StoredDocument:
    fields = {name: getattr(row, name) for name in StoredDocument.__dataclass_fields__}
    return StoredDocument(**fields)

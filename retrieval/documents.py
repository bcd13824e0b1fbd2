"""Documents of a collection: attach, list, read a span, change metadata, delete."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, and_, case, func, select, update

from infra.contracts import PUBLIC, Access, Readers
from infra.database.engine import Database
from infra.database.schema import chunk, collection, document, document_text, file
from infra.errors import InvalidRequest, NotFound
from retrieval import access
from retrieval.access import confine, readable, require_own, settle
from retrieval.collections import Collection
from retrieval.commit import PIECE_CHARACTERS, delete_row, insert_attached, log_document, touch
from retrieval.files import visible
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
    tenant: str | None
    """Whose it is; None is the operator's."""
    allow: tuple[str, ...]
    """Who of the tenant may read it; empty is everyone. `public` is everyone of every tenant."""
    created_at: datetime
    updated_at: datetime

    @property
    def readers(self) -> Readers:
        return Readers(self.tenant, self.allow)


class Documents:
    """Reads and changes the documents of collections; ingest is in `retrieval/ingest.py`."""

    def __init__(self, database: Database, *, access: Access | None = None) -> None:
        self._database = database
        self._access = access

    def seen_by(self, access: Access | None) -> Documents:
        """Return the documents as a caller sees them: those it may not read do not exist."""
        return Documents(self._database, access=access)

    def attach(
        self,
        into: Collection,
        file_id: str,
        *,
        metadata: Mapping[str, Any] | None = None,
        readers: Readers | None = None,
        announce: Callable[[Connection], object] = lambda _: None,
    ) -> StoredDocument:
        """Accept an uploaded file; it is `in_progress` until `Ingester.process` has read it.

        Attaching it again gives the document there is, with its metadata and readers replaced if
        any are given; one that had failed or was cancelled is tried again. `announce` is called in
        the same transaction if the file is to be read.

        Raises:
            NotFound: no such file.
            InvalidRequest: the metadata are not flat, or the list names nobody.
            Conflict: it would be of another tenant than its file or its collection.
            Forbidden: the file is not the caller's tenant's, or is to be shared beyond it.
        """
        check_metadata(metadata or {})
        readers = confine(self._access, readers)
        with self._database.write(lock=into.id) as connection:
            stored = connection.execute(
                select(file).where(file.c.id == file_id, visible(self._access))
            ).first()
            if stored is None:
                raise NotFound("file", file_id)
            require_own(self._access, stored.tenant, f"File {file_id!r}")
            known = connection.execute(
                select(
                    document.c.id, document.c.status, readable(self._access).label("is_seen")
                ).where(document.c.collection_id == into.id, document.c.file_id == file_id)
            ).first()
            if known is None:
                settled = settle(into, readers, owner=stored.tenant)
                number = insert_attached(connection, into, stored, metadata=metadata or {})
                access.write(connection, number, settled)
                touch(connection, into.id)
            elif not known.is_seen:
                raise NotFound("file", file_id)
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
        if known is not None and (metadata is not None or readers is not None):
            return self.update(into, file_id, metadata=metadata, readers=readers)
        return self.get(into, file_id)

    def get(self, within: Collection, file_id: str) -> StoredDocument:
        """Return one document.

        Raises:
            NotFound: the collection holds no such file.
        """
        with self._database.read() as connection:
            row = connection.execute(
                self._select(within).where(document.c.file_id == file_id)
            ).first()
            if row is None:
                raise NotFound("document", file_id)
            return self._shown(connection, [row])[0]

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
        statement = self._select(within)
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
                within=and_(document.c.collection_id == within.id, readable(self._access)),
            )
            return replace(page, items=self._shown(connection, page.items))

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

    def update(
        self,
        within: Collection,
        file_id: str,
        *,
        metadata: Mapping[str, Any] | None = None,
        readers: Readers | None = None,
    ) -> StoredDocument:
        """Replace a document's metadata or who may read it; nothing is embedded again.

        A list without a tenant is for the tenant that the document has.

        Raises:
            NotFound: the collection holds no such file that the caller may read.
            Forbidden: it is not the caller's tenant's, or is to be shared beyond it.
            Conflict: it would be of another tenant than its file or its collection.
        """
        check_metadata(metadata or {})
        readers = confine(self._access, readers) if readers is not None else None
        with self._database.write(lock=within.id) as connection:
            row = self._own(connection, within, file_id)
            values: dict[str, Any] = {"updated_at": datetime.now(UTC)}
            if metadata is not None:
                values["metadata"] = dict(metadata)
            connection.execute(update(document).where(document.c.id == row.id).values(**values))
            if readers is not None:
                given = replace(readers, tenant=readers.tenant or row.tenant)
                access.write(connection, row.id, settle(within, given, owner=row.uploader))
            log_document(connection, row.id)
        return self.get(within, file_id)

    def of_source(self, within: Collection, uri: str) -> StoredDocument | None:
        """Return the document that was read from a source, None if there is none."""
        with self._database.read() as connection:
            row = connection.execute(self._select(within).where(document.c.source == uri)).first()
            return None if row is None else self._shown(connection, [row])[0]

    def delete(self, within: Collection, file_id: str) -> int:
        """Remove a document from its collection; returns the sequence of the last change.

        The bytes of an ingested file go with its last document; an uploaded file stays.
        """
        with self._database.write(lock=within.id) as connection:
            return delete_row(connection, self._own(connection, within, file_id).id)

    def require_own(self, connection: Connection, within: Collection, file_id: str) -> int:
        """Return the number of a document that the caller may remove.

        Raises:
            NotFound: the collection holds no such file that the caller may read.
            Forbidden: it is not the caller's tenant's.
        """
        return int(self._own(connection, within, file_id).id)

    def uses(self, file_id: str) -> Sequence[tuple[int, str, str]]:
        """Return (number, collection's public id and name) of each document made from a file.

        Raises:
            NotFound: no such file that the caller may see.
            Forbidden: the file, or a document made from it, is not the caller's tenant's.
        """
        with self._database.read() as connection:
            known = connection.execute(
                select(file.c.tenant).where(file.c.id == file_id, visible(self._access))
            ).first()
            if known is None:
                raise NotFound("file", file_id)
            require_own(self._access, known.tenant, f"File {file_id!r}")
            found = connection.execute(
                select(document.c.id, document.c.tenant, collection.c.public_id, collection.c.name)
                .join(collection, collection.c.id == document.c.collection_id)
                .where(document.c.file_id == file_id)
            ).all()
        for row in found:
            require_own(self._access, row.tenant, f"File {file_id!r}")
        return [(row.id, row.public_id, row.name) for row in found]

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

    def _select(self, within: Collection) -> Any:
        chunks = (
            select(func.count())
            .where(chunk.c.build_id == within.build_id, chunk.c.document_id == document.c.id)
            .scalar_subquery()
        )
        return (
            select(document, file.c.filename, file.c.bytes, chunks.label("chunks"))
            .join(file, file.c.id == document.c.file_id)
            .where(document.c.collection_id == within.id, readable(self._access))
        )

    def _shown(
        self, connection: Connection, rows: Sequence[Row[Any]]
    ) -> tuple[StoredDocument, ...]:
        lists = access.lists(connection, [row.id for row in rows])
        return tuple(self._document(row, lists.get(row.id, ())) for row in rows)

    def _document(self, row: Row[Any], allow: tuple[str, ...]) -> StoredDocument:
        names = StoredDocument.__dataclass_fields__.keys() - {"allow"}
        found = StoredDocument(allow=allow, **{name: getattr(row, name) for name in names})
        if self._access is None or row.tenant == self._access.tenant:
            return found
        return replace(found, tenant=None, allow=(PUBLIC,))  # whose it is, is not said

    def _own(self, connection: Connection, within: Collection, file_id: str) -> Any:
        """Find the row of a document that the caller may change."""
        row = connection.execute(
            select(
                document.c.id,
                document.c.tenant,
                # Bytes that were ingested go where their document goes.
                case((file.c.purpose == "ingest", None), else_=file.c.tenant).label("uploader"),
            )
            .join(file, file.c.id == document.c.file_id)
            .where(
                document.c.collection_id == within.id,
                document.c.file_id == file_id,
                readable(self._access),
            )
        ).first()
        if row is None:
            raise NotFound("document", file_id)
        require_own(self._access, row.tenant, f"Document {file_id!r}")
        return row


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

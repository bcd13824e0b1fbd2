"""Receipts of erasures: what was removed, when and for whom, without a word of what it said."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias, cast

from sqlalchemy import Connection, Row, func, insert, select, update

from infra.database.engine import Database
from infra.database.schema import chunk, document, erasure, file
from infra.errors import NotFound
from infra.security import new_id
from retrieval.paging import Page, fetch_page

PAGE_DOCUMENTS = 500

State: TypeAlias = Literal["begun", "removed", "compacted"]


@dataclass(frozen=True, slots=True)
class ErasedDocument:
    """A document as the receipt knows it."""

    id: str
    collection: str | None
    """Public id; None for a file that no collection held."""
    version: int = 0
    digest: str = ""
    """Of the bytes."""
    source_sha256: str = ""
    """Of where it came from, which may itself tell too much."""
    bytes: int = 0
    characters: int = 0
    chunks: Mapping[str, int] = field(default_factory=dict)
    """By build."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Who wants something erased, and what it is about."""

    by: str
    """The key's name, or `terminal`."""
    tenant: str | None = None
    """Of the key."""
    with_files: bool = True
    """Remove uploaded files too, if no other document needs them."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What an erasure did; kept for good."""

    id: str
    """`erasure-...`"""
    collection: str
    """Public id; empty for a file that no collection held."""
    collection_name: str
    state: State
    """`begun`, `removed` (no endpoint finds it) or `compacted` (nor does a look at the files)."""
    requested_by: str
    tenant: str | None
    documents: tuple[ErasedDocument, ...]
    removed: Mapping[str, Any]
    """Counts: documents, chunks, files, and what the stores of answers and calls removed."""
    compaction: Mapping[str, Any]
    """What the compaction did, and what is left for others to do."""
    created_at: datetime
    removed_at: datetime | None
    compacted_at: datetime | None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Receipts:
    """Writes receipts and reads them again."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(
        self,
        connection: Connection,
        documents: Sequence[ErasedDocument],
        asked: Asked,
        *,
        collection: tuple[str, str] = ("", ""),
    ) -> str:
        """Note in a transaction what is about to be removed; returns the receipt's id."""
        number = new_id("erasure-")
        connection.execute(
            insert(erasure).values(
                id=number,
                collection=collection[0],
                collection_name=collection[1],
                state="begun",
                requested_by=asked.by,
                tenant=asked.tenant,
                documents=[asdict(each) for each in documents],
                removed={"with_files": asked.with_files},
                compaction={},
                created_at=datetime.now(UTC),
            )
        )
        return number

    def note_removed(self, receipt_id: str, removed: Mapping[str, Any]) -> None:
        """Say that no endpoint finds the documents any more."""
        with self._database.write() as connection:
            connection.execute(
                update(erasure)
                .where(erasure.c.id == receipt_id, erasure.c.state == "begun")
                .values(state="removed", removed=dict(removed), removed_at=datetime.now(UTC))
            )

    def note_compacted(self, receipt_ids: Sequence[str], compaction: Mapping[str, Any]) -> None:
        """Say that no file of this service holds the documents any more."""
        with self._database.write() as connection:
            for number in receipt_ids:
                connection.execute(
                    update(erasure)
                    .where(erasure.c.id == number, erasure.c.state == "removed")
                    .values(
                        state="compacted",
                        compaction=dict(compaction),
                        compacted_at=datetime.now(UTC),
                    )
                )

    def get(self, receipt_id: str) -> Receipt:
        """Return one receipt.

        Raises:
            NotFound: there is none of that id.
        """
        with self._database.read() as connection:
            row = connection.execute(select(erasure).where(erasure.c.id == receipt_id)).first()
        if row is None:
            raise NotFound("receipt", receipt_id)
        return _receipt(row)

    def list(
        self, *, collection: str | None = None, limit: int = 20, after: str | None = None
    ) -> Page[Receipt]:
        """Return receipts, the latest first; of one collection, by its public id, if given."""
        statement = select(erasure)
        if collection is not None:
            statement = statement.where(erasure.c.collection == collection)
        with self._database.read() as connection:
            page = fetch_page(
                connection,
                statement,
                key=erasure.c.number,
                cursor=erasure.c.id,
                limit=limit,
                after=after,
                before=None,
                descending=True,
            )
        return page.map(_receipt)

    def in_state(self, state: State, *, collection: str | None = None) -> Sequence[Receipt]:
        """Return receipts of a state, oldest first; of a collection those of bare files too."""
        statement = select(erasure).where(erasure.c.state == state).order_by(erasure.c.number)
        if collection is not None:
            statement = statement.where(erasure.c.collection.in_((collection, "")))
        with self._database.read() as connection:
            return [_receipt(row) for row in connection.execute(statement)]


def describe(
    connection: Connection, numbers: Sequence[int], collection: str
) -> list[ErasedDocument]:
    """Return what a receipt says of documents, given by number, before they are removed."""
    found: list[ErasedDocument] = []
    for start in range(0, len(numbers), PAGE_DOCUMENTS):
        found += _described(connection, numbers[start : start + PAGE_DOCUMENTS], collection)
    return found


def _described(
    connection: Connection, numbers: Sequence[int], collection: str
) -> list[ErasedDocument]:
    chunks: dict[int, dict[str, int]] = {}
    for number, build_id, count in connection.execute(
        select(chunk.c.document_id, chunk.c.build_id, func.count())
        .where(chunk.c.document_id.in_(numbers))
        .group_by(chunk.c.document_id, chunk.c.build_id)
    ):
        chunks.setdefault(number, {})[str(build_id)] = count
    rows = connection.execute(
        select(document, file.c.digest.label("held"), file.c.bytes)
        .join(file, file.c.id == document.c.file_id)
        .where(document.c.id.in_(numbers))
        .order_by(document.c.id)
    )
    return [
        ErasedDocument(
            id=row.file_id,
            collection=collection,
            version=row.version,
            digest=row.held,
            source_sha256=hashlib.sha256(row.source.encode(errors="surrogateescape")).hexdigest(),
            bytes=row.bytes,
            characters=row.characters,
            chunks=chunks.get(row.id, {}),
        )
        for row in rows
    ]


def _receipt(row: Row[Any]) -> Receipt:
    values = {name: getattr(row, name) for name in Receipt.__dataclass_fields__}
    values["documents"] = tuple(ErasedDocument(**each) for each in row.documents)
    values["state"] = cast("State", row.state)
    return Receipt(**values)

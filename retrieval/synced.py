"""What each source brought into a collection, and in which version: the memory of syncs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import and_, bindparam, delete, exists, insert, select, update

from infra.database.engine import Database
from infra.database.schema import document, source_item
from infra.errors import NotFound
from retrieval.collections import Collection
from retrieval.documents import Documents

BATCH_ROWS = 500


@dataclass(frozen=True, slots=True)
class Known:
    """One item that a source brought in."""

    token: str | None
    """The version that the collection holds; None if it is not known to hold one."""
    is_held: bool
    """Whether the document is there."""


class Synced:
    """The items of one source in one collection."""

    def __init__(self, database: Database, into: Collection, identity: str) -> None:
        self._database = database
        self._into = into
        self._scope = scope_of(identity)
        self._documents = Documents(database)
        self._mine = and_(
            source_item.c.collection_id == into.id, source_item.c.scope == self._scope
        )

    def known(self) -> dict[str, Known]:
        """Return all items by URI.

        A document that was removed or replaced by other hands is not what the token speaks of.
        """
        joined = source_item.outerjoin(
            document,
            and_(
                document.c.collection_id == source_item.c.collection_id,
                document.c.source == source_item.c.uri,
            ),
        )
        statement = select(
            source_item.c.uri,
            source_item.c.token,
            source_item.c.digest,
            document.c.digest.label("held"),
            document.c.status,
        )
        with self._database.read() as connection:
            rows = connection.execute(statement.select_from(joined).where(self._mine))
            return {
                row.uri: Known(
                    row.token if row.digest == row.held and row.status == "completed" else None,
                    row.held is not None,
                )
                for row in rows
            }

    def claim(self, uris: Iterable[str]) -> None:
        """Answer for documents that are about to be brought in."""
        wanted = list(dict.fromkeys(uris))
        for start in range(0, len(wanted), BATCH_ROWS):
            part = wanted[start : start + BATCH_ROWS]
            # What is committed later cannot outlast this, so it need not wait for the disk.
            with self._database.write(lock=self._into.id, durable=False) as connection:
                there = set(
                    connection.scalars(
                        select(source_item.c.uri).where(self._mine, source_item.c.uri.in_(part))
                    )
                )
                rows = [
                    {"collection_id": self._into.id, "scope": self._scope, "uri": uri}
                    for uri in part
                    if uri not in there
                ]
                if rows:
                    connection.execute(insert(source_item), rows)

    def mark(self, tokens: Mapping[str, str | None]) -> None:
        """Note which versions the collection holds now."""
        if not tokens:
            return
        held = (
            select(document.c.digest)
            .where(
                document.c.collection_id == self._into.id,
                document.c.source == bindparam("of"),
            )
            .scalar_subquery()
        )
        with self._database.write(durable=False) as connection:
            connection.execute(
                update(source_item)
                .where(self._mine, source_item.c.uri == bindparam("of"))
                .values(token=bindparam("version"), digest=held),
                [{"of": uri, "version": token} for uri, token in tokens.items()],
            )

    def remove(self, uri: str) -> bool:
        """Delete the document of an item and forget it; returns whether there was a document.

        A document that another source of the collection brings in as well stays.
        """
        other = source_item.alias()
        with self._database.read() as connection:
            file_id = connection.scalar(
                select(document.c.file_id).where(
                    document.c.collection_id == self._into.id,
                    document.c.source == uri,
                    ~exists().where(
                        other.c.collection_id == self._into.id,
                        other.c.uri == uri,
                        other.c.scope != self._scope,
                    ),
                )
            )
        if file_id is not None:
            try:
                self._documents.delete(self._into, file_id)
            except NotFound:  # by other hands meanwhile
                file_id = None
        # After the document: whoever is killed in between finds the item and removes it again.
        with self._database.write(durable=False) as connection:
            connection.execute(delete(source_item).where(self._mine, source_item.c.uri == uri))
        return file_id is not None


def scope_of(identity: str) -> str:
    """Return the short form under which what a place brought in is remembered."""
    return hashlib.sha256(identity.encode(errors="surrogateescape")).hexdigest()

"""Erasure: rows, vectors, bytes and every store that quotes them, with a receipt of what went.

note -> remove documents -> remove bytes -> have other stores erase -> note that it is done

What is left in index files and in the database's own files goes with a compaction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, select

from infra.database.engine import Database
from infra.database.schema import collection, document, file
from infra.errors import Conflict, NotFound
from retrieval.collections import Collection
from retrieval.commit import delete_row
from retrieval.documents import Documents
from retrieval.files import Files, doom_unreferenced
from retrieval.filters import Filter
from retrieval.quotes import Quotes
from retrieval.receipts import Asked, ErasedDocument, Receipt, Receipts, describe
from retrieval.view import View


class Erasure:
    """Removes documents for good; what a crash cuts short, `finish` completes."""

    def __init__(
        self,
        database: Database,
        files: Files,
        *,
        quotes: Quotes,
        on_step: Callable[[str], object] = lambda _: None,
    ) -> None:
        """Take the parts.

        Args:
            database: where documents and receipts are.
            files: the bytes as they came.
            quotes: what other stores keep of documents.
            on_step: told of each step when it is done.
        """
        self._database = database
        self._files = files
        self._quotes = quotes
        self._on_step = on_step
        self.receipts = Receipts(database)

    def erase(
        self, documents: Documents, within: Collection, file_ids: Sequence[str], *, asked: Asked
    ) -> Receipt:
        """Remove documents from a collection, in every build of it.

        Args:
            documents: as the caller sees them.
            within: the collection.
            file_ids: public ids.
            asked: for the receipt.

        Raises:
            NotFound: the collection holds no such document; nothing was removed.
            Forbidden: a document is not the caller's to remove; nothing was removed.
        """
        wanted = list(dict.fromkeys(file_ids))
        with self._database.write(lock=within.id) as connection:
            numbers = [documents.require_own(connection, within, each) for each in wanted]
            described = describe(connection, numbers, within.public_id)
            receipt_id = self.receipts.begin(
                connection, described, asked, collection=(within.public_id, within.name)
            )
        self._on_step("noted")
        return self._carry_out(self.receipts.get(receipt_id))

    def erase_file(self, documents: Documents, file_id: str, *, asked: Asked) -> Sequence[Receipt]:
        """Remove a file and every document made from it, in whatever collection.

        Raises:
            NotFound: no such file.
            Forbidden: the file, or a document made from it, is not the caller's to remove.
        """
        uses = documents.uses(file_id)
        with self._database.write() as connection:
            begun = [
                self.receipts.begin(
                    connection,
                    describe(connection, [number], public_id),
                    asked,
                    collection=(public_id, name),
                )
                for number, public_id, name in uses
            ]
            stored = connection.execute(select(file).where(file.c.id == file_id)).first()
            if stored is not None and not uses:
                bare = ErasedDocument(file_id, None, digest=stored.digest, bytes=stored.bytes)
                begun.append(self.receipts.begin(connection, [bare], asked))
        self._on_step("noted")
        receipts = [self._carry_out(self.receipts.get(number)) for number in begun]
        with self._database.read() as connection:
            if connection.execute(select(file.c.id).where(file.c.id == file_id)).first():
                raise Conflict(f"File {file_id!r} was attached again meanwhile; delete it again")
        return receipts

    def begin_collection(self, whole: Collection, *, asked: Asked) -> str:
        """Note that a collection and all that it holds is about to be removed.

        `finish` does what is left to do once it is gone.
        """
        with self._database.write(lock=whole.id) as connection:
            numbers = (
                connection.execute(
                    select(document.c.id)
                    .where(document.c.collection_id == whole.id)
                    .order_by(document.c.id)
                )
                .scalars()
                .all()
            )
            described = describe(connection, numbers, whole.public_id)
            return self.receipts.begin(
                connection, described, asked, collection=(whole.public_id, whole.name)
            )

    def finish(self, *, collection: str | None = None) -> int:
        """Complete what a crash cut short; returns how many erasures that were."""
        begun = self.receipts.in_state("begun", collection=collection)
        for receipt in begun:
            self._carry_out(receipt)
        return len(begun)

    def erase_quotes(self, receipts: Sequence[Receipt]) -> Mapping[str, int]:
        """Have the other stores erase again: an answer may have been under way meanwhile."""
        return self._quotes.erase([each.id for receipt in receipts for each in receipt.documents])

    def _carry_out(self, receipt: Receipt) -> Receipt:
        with_files = bool(receipt.removed.get("with_files", True))
        for each in receipt.documents:
            self._remove(each, with_file=with_files)
            self._on_step("document")
        files = self._files.sweep_bytes()
        self._on_step("bytes")
        quotes = self.erase_quotes([receipt])
        self._on_step("quotes")
        removed: dict[str, Any] = {
            "documents": len(receipt.documents),
            "chunks": sum(sum(each.chunks.values()) for each in receipt.documents),
            "bytes": sum(each.bytes for each in receipt.documents),
            "files": files,
            **quotes,
            "with_files": with_files,
        }
        self.receipts.note_removed(receipt.id, removed)
        self._on_step("removed")
        return self.receipts.get(receipt.id)

    def _remove(self, gone: ErasedDocument, *, with_file: bool) -> None:
        """Remove one document and, if nothing else needs it, its file; done again, does nothing."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(document.c.id, document.c.collection_id).where(
                    document.c.file_id == gone.id,
                    document.c.collection_id == _collection_number(gone.collection),
                )
            ).all()
        for row in rows:
            with self._database.write(lock=row.collection_id) as connection:
                delete_row(connection, row.id)
                if with_file:
                    doom_unreferenced(connection, [gone.id])
        if not rows and with_file:
            with self._database.write() as connection:
                doom_unreferenced(connection, [gone.id])


def select_documents(
    view: View,
    connection: Connection,
    *,
    chosen: Filter | None = None,
    tenant: str | None = None,
) -> Sequence[str]:
    """Return the public ids of a collection's documents that match a filter, or are a tenant's.

    Raises:
        InvalidFilter: no document has such a field, or values of that kind in it.
        NotFound: nothing matches.
    """
    statement = select(document.c.file_id).where(document.c.collection_id == view.collection.id)
    if tenant is not None:
        statement = statement.where(document.c.tenant == tenant)
    found = connection.execute(statement.order_by(document.c.id)).scalars().all()
    if chosen is not None:
        matching = set(view.selection.anew().documents(None, chosen).tolist())
        numbers = connection.execute(
            statement.with_only_columns(document.c.id, document.c.file_id)
        ).all()
        found = [row.file_id for row in numbers if row.id in matching]
    if not found:
        raise NotFound("document", f"tenant {tenant}" if tenant else "filter")
    return found


def _collection_number(public_id: str | None) -> Any:
    return select(collection.c.id).where(collection.c.public_id == public_id).scalar_subquery()

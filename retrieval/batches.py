"""Batches: files attached together, followed and cancelled as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import ColumnElement, Select, and_, func, insert, select, true, update

from infra.contracts import Access
from infra.database.engine import Database
from infra.database.schema import batch, batch_member, document
from infra.errors import NotFound
from infra.security import new_id
from retrieval.access import readable
from retrieval.collections import Collection
from retrieval.documents import Documents, StoredDocument
from retrieval.paging import Page, fetch_page


@dataclass(frozen=True, slots=True)
class Batch:
    id: str
    """`vsfb_...`"""
    created_at: datetime
    cancelled_at: datetime | None
    in_progress: int
    completed: int
    failed: int
    cancelled: int

    @property
    def total(self) -> int:
        return self.in_progress + self.completed + self.failed + self.cancelled

    @property
    def status(self) -> str:
        """`in_progress`, `completed`, `failed` (all of it) or `cancelled`."""
        if self.in_progress:
            return "in_progress"
        if self.cancelled_at is not None:
            return "cancelled"
        return "failed" if self.total and self.failed == self.total else "completed"


class Batches:
    """Remembers which files came together."""

    def __init__(self, database: Database, *, access: Access | None = None) -> None:
        self._database = database
        self._access = access
        self._documents = Documents(database, access=access)

    def seen_by(self, access: Access | None) -> Batches:
        """Return the batches as a caller sees them: its tenant's, with the files it may read."""
        return Batches(self._database, access=access)

    def create(self, into: Collection, file_ids: Sequence[str]) -> Batch:
        """Note that files which are attached to `into` belong together."""
        number = new_id("vsfb_")
        with self._database.write() as connection:
            connection.execute(
                insert(batch).values(
                    id=number,
                    collection_id=into.id,
                    tenant=self._access.tenant if self._access else None,
                    created_at=datetime.now(UTC),
                )
            )
            connection.execute(
                insert(batch_member),
                [{"batch_id": number, "file_id": file_id} for file_id in dict.fromkeys(file_ids)],
            )
        return self.get(into, number)

    def get(self, within: Collection, batch_id: str) -> Batch:
        """Return a batch with its files counted by status.

        Raises:
            NotFound: the collection has no such batch.
        """
        with self._database.read() as connection:
            row = connection.execute(
                select(batch).where(
                    batch.c.id == batch_id, batch.c.collection_id == within.id, self._mine
                )
            ).first()
            if row is None:
                raise NotFound("batch", batch_id)
            counts = connection.execute(
                select(document.c.status, func.count().label("documents"))
                .where(
                    document.c.collection_id == within.id,
                    document.c.file_id.in_(_members(batch_id)),
                    readable(self._access),
                )
                .group_by(document.c.status)
            )
            by_status = {count.status: count.documents for count in counts}
        return Batch(
            id=row.id,
            created_at=row.created_at,
            cancelled_at=row.cancelled_at,
            in_progress=by_status.get("in_progress", 0),
            completed=by_status.get("completed", 0),
            failed=by_status.get("failed", 0),
            cancelled=by_status.get("cancelled", 0),
        )

    def cancel(self, within: Collection, batch_id: str) -> Batch:
        """Have the files that are not read yet left unread; one that is being read is finished."""
        if self.get(within, batch_id).in_progress:
            now = datetime.now(UTC)
            with self._database.write(lock=within.id) as connection:
                connection.execute(
                    update(document)
                    .where(
                        document.c.collection_id == within.id,
                        document.c.status == "in_progress",
                        document.c.file_id.in_(_members(batch_id)),
                        readable(self._access),
                    )
                    .values(status="cancelled", updated_at=now)
                )
                connection.execute(
                    update(batch).where(batch.c.id == batch_id).values(cancelled_at=now)
                )
        return self.get(within, batch_id)

    def list_documents(  # noqa: PLR0913  a page is what these say
        self,
        within: Collection,
        batch_id: str,
        *,
        status: str | None = None,
        limit: int = 20,
        after: str | None = None,
        before: str | None = None,
        descending: bool = True,
    ) -> Page[StoredDocument]:
        """Return the documents of a batch in order of arrival."""
        self.get(within, batch_id)
        statement = select(document.c.file_id).where(
            document.c.collection_id == within.id,
            document.c.file_id.in_(_members(batch_id)),
            readable(self._access),
        )
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
        return page.map(lambda row: self._documents.get(within, row.file_id))

    @property
    def _mine(self) -> ColumnElement[bool]:
        return true() if self._access is None else batch.c.tenant == self._access.tenant


def _members(batch_id: str) -> Select[str]:
    return select(batch_member.c.file_id).where(batch_member.c.batch_id == batch_id)

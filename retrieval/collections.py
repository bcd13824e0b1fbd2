"""Collections: named sets of documents, each with the build that answers for it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from infra.contracts import Access, Readers
from infra.database.engine import Database
from infra.database.schema import build, chunk, collection, document, file
from infra.errors import Conflict, Forbidden, InvalidRequest, NotFound
from infra.security import new_id
from retrieval.access import check as check_readers
from retrieval.access import readable, require_own
from retrieval.files import doom_unreferenced
from retrieval.paging import Page, fetch_page
from retrieval.quotes import doom_quotes
from retrieval.recipe import Recipe

NAME = re.compile(r"[^\x00-\x1f\x7f/]{1,255}")


@dataclass(frozen=True, slots=True)
class Collection:
    id: int
    public_id: str
    """`vs_...`: a collection is a vector store."""
    name: str
    build_id: int
    recipe: Recipe
    attributes: Mapping[str, Any]
    created_at: datetime
    last_active_at: datetime
    tenant: str | None = None
    """Whose it is, and all its documents; None is the operator's, who may share it."""


@dataclass(frozen=True, slots=True)
class Statistics:
    in_progress: int
    completed: int
    failed: int
    cancelled: int
    chunks: int
    bytes: int
    """Of the files as they came."""
    last_active_at: datetime | None = None
    """When the last of the documents was written; None if there is none."""

    @property
    def documents(self) -> int:
        return self.in_progress + self.completed + self.failed + self.cancelled


class Collections:
    """Creates, finds and removes collections."""

    def __init__(
        self,
        database: Database,
        *,
        access: Access | None = None,
        accepts: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self._database = database
        self._access = access
        self._accepts = accepts

    def seen_by(self, access: Access | None, accepts: Callable[[str], bool]) -> Collections:
        """Return the collections as a caller sees them; the others do not exist.

        Args:
            access: a tenant sees its own and the operator's, with its own documents in them.
            accepts: which names it may see.
        """
        return Collections(self._database, access=access, accepts=accepts)

    def create(
        self,
        name: str,
        recipe: Recipe,
        *,
        attributes: Mapping[str, Any] | None = None,
        tenant: str | None = None,
    ) -> Collection:
        """Create an empty collection, of a tenant if one is named or asks.

        Raises:
            Conflict: the name is taken.
            Forbidden: the caller may not see collections of that name.
            InvalidRequest: the name is empty, too long, or holds control characters or a slash.
        """
        if not NAME.fullmatch(name) or name != name.strip():
            raise InvalidRequest(
                f"{name!r} cannot name a collection: 1 to 255 characters, no slash or control "
                "characters, no space at either end",
                parameter="name",
            )
        self._require_name(name)
        tenant = self._access.tenant if self._access else tenant
        check_readers(Readers(tenant))
        now = datetime.now(UTC)
        try:
            with self._database.write() as connection:
                number = connection.execute(
                    insert(collection)
                    .values(
                        public_id=new_id("vs_"),
                        name=name,
                        tenant=tenant,
                        attributes=dict(attributes or {}),
                        created_at=now,
                        last_active_at=now,
                    )
                    .returning(collection.c.id)
                ).scalar_one()
                build_number = _insert_build(connection, number, recipe, now)
                connection.execute(
                    update(collection)
                    .where(collection.c.id == number)
                    .values(live_build_id=build_number)
                )
        except IntegrityError as error:
            raise Conflict(f"A collection named {name!r} exists already") from error
        return self.get(name)

    def get(self, name: str) -> Collection:
        """Return the collection of that name or public id.

        Raises:
            NotFound: near names are suggested.
        """
        with self._database.read() as connection:
            row = connection.execute(
                self._select().where((collection.c.name == name) | (collection.c.public_id == name))
            ).first()
            if row is None or not self._accepts(row.name):
                rows = connection.execute(self._select().limit(1000)).all()
                near = [each.name for each in rows if self._accepts(each.name)]
                raise NotFound("collection", name, among=near)
        return _collection(row)

    def list(
        self,
        *,
        limit: int = 20,
        after: str | None = None,
        before: str | None = None,
        descending: bool = True,
    ) -> Page[Collection]:
        """Return collections by time of creation; `after` and `before` are public ids."""
        with self._database.read() as connection:
            page = fetch_page(
                connection,
                self._select().where(collection.c.id.in_(self._accepted(connection))),
                key=collection.c.id,
                cursor=collection.c.public_id,
                limit=limit,
                after=after,
                before=before,
                descending=descending,
                within=collection.c.id.in_(self._accepted(connection)),
            )
        return page.map(_collection)

    def update(
        self, name: str, *, new_name: str | None = None, attributes: Mapping[str, Any] | None = None
    ) -> Collection:
        """Rename a collection or replace its attributes; what is None stays."""
        current = self._own(name)
        values: dict[str, Any] = {"last_active_at": datetime.now(UTC)}
        if new_name is not None:
            if not NAME.fullmatch(new_name) or new_name != new_name.strip():
                raise InvalidRequest(f"{new_name!r} cannot name a collection", parameter="name")
            self._require_name(new_name)
            values["name"] = new_name
        if attributes is not None:
            values["attributes"] = dict(attributes)
        try:
            with self._database.write() as connection:
                connection.execute(
                    update(collection).where(collection.c.id == current.id).values(**values)
                )
        except IntegrityError as error:
            raise Conflict(f"A collection named {new_name!r} exists already") from error
        return self.get(current.public_id)

    def delete(self, name: str) -> Collection:
        """Remove a collection with its documents, chunks and vectors; uploaded files stay.

        The index folder is removed by whoever holds the views; the bytes of ingested files by
        `Files.sweep`.
        """
        current = self._own(name)
        with self._database.write(lock=current.id) as connection:
            rows = connection.execute(
                select(file.c.id, file.c.purpose)
                .join(document, document.c.file_id == file.c.id)
                .where(document.c.collection_id == current.id)
            ).all()
            connection.execute(delete(collection).where(collection.c.id == current.id))
            doom_unreferenced(connection, [row.id for row in rows if row.purpose == "ingest"])
            doom_quotes(connection, [row.id for row in rows])
        return current

    def statistics(self, collection_id: int) -> Statistics:
        """Count documents by status, chunks of the live build, and bytes, as the caller sees."""
        with self._database.read() as connection:
            by_status: dict[str, int] = {}
            size, latest = 0, None
            for row in connection.execute(
                select(
                    document.c.status,
                    func.count().label("documents"),
                    func.sum(file.c.bytes).label("bytes"),
                    func.max(document.c.updated_at).label("latest"),
                )
                .join(file, file.c.id == document.c.file_id)
                .where(document.c.collection_id == collection_id, readable(self._access))
                .group_by(document.c.status)
            ):
                by_status[row.status] = row.documents
                size += int(row.bytes or 0)
                latest = max(latest or row.latest, row.latest)
            chunks = connection.execute(
                self._only_readable(select(func.count()).select_from(chunk))
                .join(collection, collection.c.live_build_id == chunk.c.build_id)
                .where(collection.c.id == collection_id)
            ).scalar_one()
        return Statistics(
            in_progress=by_status.get("in_progress", 0),
            completed=by_status.get("completed", 0),
            failed=by_status.get("failed", 0),
            cancelled=by_status.get("cancelled", 0),
            chunks=chunks,
            bytes=size,
            last_active_at=latest,
        )

    def _select(self) -> Select[Any]:
        statement = select(collection, build.c.recipe).join(
            build, build.c.id == collection.c.live_build_id
        )
        if self._access is None:
            return statement
        mine = or_(collection.c.tenant.is_(None), collection.c.tenant == self._access.tenant)
        return statement.where(mine)

    def _accepted(self, connection: Connection) -> Select[Any]:
        """The numbers of the collections that the caller may see."""
        seen = self._select().with_only_columns(collection.c.id)
        names = connection.execute(self._select().with_only_columns(collection.c.name)).scalars()
        refused = [name for name in names if not self._accepts(name)]
        return seen.where(collection.c.name.not_in(refused)) if refused else seen

    def _only_readable(self, statement: Select[Any]) -> Select[Any]:
        if self._access is None:
            return statement
        own = statement.join(document, document.c.id == chunk.c.document_id)
        return own.where(readable(self._access))

    def _require_name(self, name: str) -> None:
        if not self._accepts(name):
            raise Forbidden(f"The key may not see a collection named {name!r}, nor make one")

    def _own(self, name: str) -> Collection:
        current = self.get(name)
        require_own(self._access, current.tenant, f"Collection {current.name!r}")
        return current


def _insert_build(connection: Connection, collection_id: int, recipe: Recipe, now: datetime) -> int:
    number: int = connection.execute(
        insert(build)
        .values(
            collection_id=collection_id,
            state="live",
            recipe_digest=recipe.digest,
            recipe=recipe.as_dict(),
            dimension=recipe.dimension,
            created_at=now,
        )
        .returning(build.c.id)
    ).scalar_one()
    return number


def _collection(row: Row[Any]) -> Collection:
    return Collection(
        id=row.id,
        public_id=row.public_id,
        name=row.name,
        build_id=row.live_build_id,
        recipe=Recipe(**row.recipe),
        attributes=row.attributes,
        created_at=row.created_at,
        last_active_at=row.last_active_at,
        tenant=row.tenant,
    )

"""Named sources: which place a collection is kept in step with; no secret is ever stored."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import Row, delete, insert, select
from sqlalchemy.exc import IntegrityError

from infra.contracts import Readers
from infra.database.engine import Database
from infra.database.schema import collection, source
from infra.errors import Conflict, InvalidRequest, NotFound
from retrieval.access import settle
from retrieval.collections import Collection
from retrieval.documents import check_metadata
from retrieval.sources import Spec

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class Definition:
    """A source by name."""

    name: str
    spec: Spec
    collection: str
    """Public id."""
    collection_name: str
    identity: str
    """Of the place; what was brought in is remembered under it."""
    options: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    readers: Readers | None = None
    created_at: datetime = datetime.min.replace(tzinfo=UTC)


class Definitions:
    """The named sources of a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(  # noqa: PLR0913  a source is what these say
        self,
        name: str,
        spec: Spec,
        into: Collection,
        *,
        identity: str,
        options: Mapping[str, str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        readers: Readers | None = None,
    ) -> Definition:
        """Name a source.

        Raises:
            Conflict: there is one of that name, or the collection is of another tenant.
            InvalidRequest: the name is none, or the place holds a password.
        """
        if not NAME.fullmatch(name):
            raise InvalidRequest(
                f"{name!r} is not a name: lower-case letters, digits, '.', '_' and '-'",
                parameter="name",
            )
        check_metadata(metadata or {})
        refuse_secrets(spec)
        settled = settle(into, readers) if readers is not None else None
        try:
            with self._database.write() as connection:
                connection.execute(
                    insert(source).values(
                        name=name,
                        collection_id=into.id,
                        kind=spec.kind,
                        place=spec.place,
                        identity=identity,
                        options=dict(options or {}),
                        metadata=dict(metadata or {}),
                        tenant=settled.tenant if settled else None,
                        allow=list(settled.allow) if settled else None,
                        created_at=datetime.now(UTC),
                    )
                )
        except IntegrityError:
            raise Conflict(f"There is a source {name!r}; remove it first") from None
        return self.get(name)

    def get(self, name: str) -> Definition:
        """Return a source.

        Raises:
            NotFound: there is none of that name.
        """
        for each in self.list():
            if each.name == name:
                return each
        raise NotFound("source", name, among=[each.name for each in self.list()])

    def list(self) -> Sequence[Definition]:
        """Return all sources by name."""
        statement = (
            select(source, collection.c.public_id, collection.c.name.label("collection_name"))
            .join(collection, collection.c.id == source.c.collection_id)
            .order_by(source.c.name)
        )
        with self._database.read() as connection:
            return [_definition(row) for row in connection.execute(statement)]

    def remove(self, name: str) -> Definition:
        """Forget a source; its documents stay.

        Raises:
            NotFound: there is none of that name.
        """
        gone = self.get(name)
        with self._database.write() as connection:
            connection.execute(delete(source).where(source.c.name == name))
        return gone


def refuse_secrets(spec: Spec) -> None:
    """Refuse a place that holds a user or password.

    Raises:
        InvalidRequest: it does.
    """
    try:
        has_user = "@" in urlsplit(spec.place).netloc
    except ValueError as error:
        raise InvalidRequest(f"{spec.place!r} is not a URL: {error}", parameter="source") from None
    if has_user:
        raise InvalidRequest(
            "A source's address must not hold a user or password; give them by"
            " sources.storage_options or the environment",
            parameter="source",
        )


def _definition(row: Row[Any]) -> Definition:
    return Definition(
        name=row.name,
        spec=Spec(row.kind, row.place),
        collection=row.public_id,
        collection_name=row.collection_name,
        identity=row.identity,
        options=row.options,
        metadata=row.metadata,
        readers=None if row.allow is None else Readers(row.tenant, tuple(row.allow)),
        created_at=row.created_at,
    )

"""The builds of a collection as the database knows them, and which documents one still lacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias, cast

from sqlalchemy import ColumnElement, Connection, Row, and_, func, insert, or_, select

from infra.database.schema import build, build_document, build_event, collection, document
from infra.errors import NotFound
from retrieval.collections import Collection
from retrieval.recipe import Recipe

State: TypeAlias = Literal["building", "live", "standby", "reclaiming", "reclaimed"]
FOLLOWED: tuple[State, ...] = ("building", "live", "standby")
"""Builds that every write goes to."""


@dataclass(frozen=True, slots=True)
class Build:
    """One set of chunks and vectors over the documents of a collection."""

    id: int
    collection_id: int
    state: State
    recipe: Recipe
    created_at: datetime

    def of(self, whole: Collection) -> Collection:
        """Return the collection as this build answers for it."""
        return replace(whole, build_id=self.id, recipe=self.recipe)


@dataclass(frozen=True, slots=True)
class Event:
    """One entry in the history of a collection's builds."""

    build_id: int
    kind: str
    """`started`, `refused`, `swapped`, `rolled_back`, `retired`, or `synced` with its sources."""
    detail: dict[str, Any]
    at: datetime


def followed(connection: Connection, collection_id: int) -> list[Build]:
    """Return the builds that a write goes to, the live one first; none if the collection is gone.

    The live one is logged first, so that what a write answers with is the smallest of its
    sequences: whoever waits for it finds every other build past it.
    """
    rows = connection.execute(
        select(build, collection.c.live_build_id)
        .join(collection, collection.c.id == build.c.collection_id)
        .where(build.c.collection_id == collection_id, build.c.state.in_(FOLLOWED))
        .order_by(build.c.id)
    ).all()
    return [as_build(row) for row in sorted(rows, key=lambda row: row.id != row.live_build_id)]


def all_followed(connection: Connection) -> list[tuple[int, Build]]:
    """Return (collection number, build) for every build of every collection that is kept in step.

    The live ones come first, then those that stand by.
    """
    rows = connection.execute(select(build).where(build.c.state.in_(FOLLOWED)).order_by(build.c.id))
    builds = [as_build(row) for row in rows]
    order = ("live", "standby", "building")
    builds.sort(key=lambda each: order.index(each.state))
    return [(each.collection_id, each) for each in builds]


def recipes(connection: Connection) -> list[Recipe]:
    """Return what builds of any collection were made with, those that are gone left out."""
    return [each.recipe for _, each in all_followed(connection)]


def instead_of_removed(connection: Connection, whole: Collection) -> Collection | None:
    """Return the collection as its live build answers for it, if the build at hand is gone."""
    state = connection.execute(select(build.c.state).where(build.c.id == whole.build_id)).scalar()
    if state is None or state in FOLLOWED:
        return None
    builds = followed(connection, whole.id)
    return builds[0].of(whole) if builds else None


def every(connection: Connection, collection_id: int) -> list[Build]:
    """Return all builds there ever were, oldest first."""
    rows = connection.execute(
        select(build).where(build.c.collection_id == collection_id).order_by(build.c.id)
    )
    return [as_build(row) for row in rows]


def get(connection: Connection, collection_id: int, build_id: int) -> Build:
    """Return one build.

    Raises:
        NotFound: the collection has no such build.
    """
    row = connection.execute(
        select(build).where(build.c.collection_id == collection_id, build.c.id == build_id)
    ).first()
    if row is None:
        raise NotFound("build", str(build_id))
    return as_build(row)


def missing(
    connection: Connection, of: Build, *, after: int = 0, limit: int | None = None
) -> Sequence[int]:
    """Return the numbers of documents that the build lacks, or holds in an older version."""
    rows = connection.execute(
        select(document.c.id)
        .select_from(_beside(of))
        .where(_lacks(of), document.c.id > after)
        .order_by(document.c.id)
        .limit(limit)
    )
    return rows.scalars().all()


def count(connection: Connection, of: Build) -> tuple[int, int]:
    """Return how many documents with contents there are, and how many of them the build lacks."""
    total = connection.execute(
        select(func.count()).where(
            document.c.collection_id == of.collection_id, document.c.version > 0
        )
    ).scalar_one()
    lacking = connection.execute(
        select(func.count()).select_from(_beside(of)).where(_lacks(of))
    ).scalar_one()
    return int(total), int(lacking)


def record(connection: Connection, of: Build, kind: str, detail: dict[str, Any]) -> None:
    """Add to the history."""
    connection.execute(
        insert(build_event).values(
            collection_id=of.collection_id,
            build_id=of.id,
            kind=kind,
            detail=detail,
            at=datetime.now(UTC),
        )
    )


def history(connection: Connection, collection_id: int) -> list[Event]:
    """Return what happened to the builds of a collection, oldest first."""
    rows = connection.execute(
        select(build_event)
        .where(build_event.c.collection_id == collection_id)
        .order_by(build_event.c.id)
    )
    return [Event(row.build_id, row.kind, row.detail, row.at) for row in rows]


def as_build(row: Row[Any]) -> Build:
    return Build(
        id=row.id,
        collection_id=row.collection_id,
        state=cast("State", row.state),
        recipe=Recipe(**row.recipe),
        created_at=row.created_at,
    )


def _beside(of: Build) -> Any:
    return document.outerjoin(
        build_document,
        and_(build_document.c.document_id == document.c.id, build_document.c.build_id == of.id),
    )


def _lacks(of: Build) -> ColumnElement[bool]:
    # Version 0 has been accepted and not read: there is nothing yet to build.
    return and_(
        document.c.collection_id == of.collection_id,
        document.c.version > 0,
        or_(build_document.c.version.is_(None), build_document.c.version != document.c.version),
    )

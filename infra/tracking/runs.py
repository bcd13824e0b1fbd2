"""Reads what is known about runs, and deletes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, Row, Select, delete, select

from infra.database.engine import Database
from infra.errors import Conflict, InvalidRequest, NotFound
from infra.tracking.points import Points, unpack
from infra.tracking.records import (
    Link,
    MirrorState,
    RunRecord,
    Series,
    State,
    is_lost,
    read_run,
    read_series,
)
from infra.tracking.tables import (
    package_set,
    run,
    run_artifact,
    run_block,
    run_mirror,
    run_series,
    run_tag,
)
from infra.tracking.writing import database_now

MIN_PREFIX = len("run-") + 4
_SUGGESTED = 200
_PAGE = 200


class Runs:
    """The runs of one database; safe to share between threads."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def get(self, run_id: str) -> RunRecord:
        """Return a run.

        Raises:
            NotFound: there is none with this id.
        """
        with self.database.read() as connection:
            return self._read(connection, [_find(connection, run_id)])[0]

    def find(self, text: str) -> RunRecord:
        """Return a run by its id, by the beginning of its id, or the newest of a name.

        Raises:
            InvalidRequest: several ids begin so.
            NotFound: none is meant; near names are suggested.
        """
        with self.database.read() as connection:
            rows = connection.execute(select(run).where(run.c.id == text)).all()
            if not rows and text.startswith("run-") and len(text) >= MIN_PREFIX:
                rows = connection.execute(
                    select(run).where(run.c.id.startswith(text, autoescape=True)).limit(2)
                ).all()
            if len(rows) > 1:
                raise InvalidRequest(f"Several runs begin with {text!r}; write more of the id")
            if not rows:
                newest = select(run).where(run.c.name == text).order_by(run.c.number.desc())
                rows = connection.execute(newest.limit(1)).all()
            if not rows:
                names = select(run.c.name).order_by(run.c.number.desc()).limit(_SUGGESTED)
                raise NotFound("run", text, among=set(connection.scalars(names)))
            return self._read(connection, rows)[0]

    def list(
        self,
        *,
        kind: str | None = None,
        state: State | None = None,
        name: str | None = None,
        limit: int = 50,
        before: str | None = None,
    ) -> Sequence[RunRecord]:
        """Return runs, newest first; `before` is the id of the last one of the page before."""
        query = select(run).order_by(run.c.number.desc())
        for column, value in ((run.c.kind, kind), (run.c.name, name)):
            if value is not None:
                query = query.where(column == value)
        if state is not None:  # the table does not know which of the running ones are lost
            query = query.where(run.c.state == ("running" if state == "lost" else state))
        with self.database.read() as connection:
            if before is not None:
                query = query.where(run.c.number < _find(connection, before).number)
            if state not in {"running", "lost"}:
                rows = list(connection.execute(query.limit(limit)))
            else:
                now = database_now(connection, self.database)
                found = self._walk(connection, query)
                wanted = (row for row in found if is_lost(row, now=now) == (state == "lost"))
                rows = [row for row, _ in zip(wanted, range(limit), strict=False)]
            return self._read(connection, rows)

    def children(self, run_id: str) -> Sequence[str]:
        """Return the ids of the runs that are part of one, in order."""
        with self.database.read() as connection:
            query = select(run.c.id).where(run.c.parent_id == run_id).order_by(run.c.number)
            return connection.scalars(query).all()

    def links(self, run_id: str) -> Sequence[Link]:
        """Return the artifacts a run used and made, in order."""
        query = select(run_artifact).where(run_artifact.c.run_id == run_id)
        with self.database.read() as connection:
            rows = connection.execute(query.order_by(run_artifact.c.id))
            return [
                Link(row.direction, row.role, row.reference, row.digest, row.at) for row in rows
            ]

    def series(self, run_id: str) -> Sequence[Series]:
        """Return how a run's metrics stand, by name."""
        query = select(run_series).where(run_series.c.run_id == run_id)
        with self.database.read() as connection:
            return [read_series(row) for row in connection.execute(query.order_by("name"))]

    def points(self, run_id: str, metric: str) -> Points:
        """Return every point of a metric in the order it was logged.

        Raises:
            NotFound: the run, or a metric of this name, does not exist; near names are suggested.
        """
        with self.database.read() as connection:
            _find(connection, run_id)
            mine = run_series.c.run_id == run_id
            series = connection.scalar(
                select(run_series.c.id).where(mine, run_series.c.name == metric)
            )
            if series is None:
                names = connection.scalars(select(run_series.c.name).where(mine)).all()
                raise NotFound("metric", metric, among=names)
            return unpack(
                connection.scalars(
                    select(run_block.c.points)
                    .where(run_block.c.series_id == series)
                    .order_by(run_block.c.id)
                )
            )

    def packages(self, digest: str) -> tuple[str, ...]:
        """Return what was installed, as `name==version`, sorted.

        Raises:
            NotFound: no run had these.
        """
        with self.database.read() as connection:
            found = connection.scalar(
                select(package_set.c.packages).where(package_set.c.digest == digest)
            )
        if found is None:
            raise NotFound("set of packages", digest)
        return tuple(found)

    def mirrors(self, run_id: str) -> Sequence[MirrorState]:
        """Return how far each mirror has followed a run."""
        query = select(run_mirror).where(run_mirror.c.run_id == run_id)
        with self.database.read() as connection:
            return [
                MirrorState(row.mirror, row.state, row.remote_id, row.error)
                for row in connection.execute(query.order_by(run_mirror.c.mirror))
            ]

    def delete(self, run_id: str) -> None:
        """Remove a run with its metrics; its artifacts, its children and its mirrors' copies stay.

        Raises:
            NotFound: there is none with this id.
            Conflict: it is running.
        """
        with self.database.write() as connection:
            row = _find(connection, run_id)
            now = database_now(connection, self.database)
            if row.state == "running" and not is_lost(row, now=now):
                raise Conflict(f"Run {run_id!r} is running; end its process first")
            connection.execute(delete(run).where(run.c.id == run_id))

    def _walk(self, connection: Connection, query: Select[Any]) -> Iterator[Row[Any]]:
        last = None
        while True:
            page = query if last is None else query.where(run.c.number < last)
            rows = connection.execute(page.limit(_PAGE)).all()
            yield from rows
            if len(rows) < _PAGE:
                return
            last = rows[-1].number

    def _read(self, connection: Connection, rows: Iterable[Row[Any]]) -> Sequence[RunRecord]:
        found = list(rows)
        tags: dict[str, dict[str, str]] = {row.id: {} for row in found}
        wanted = select(run_tag).where(run_tag.c.run_id.in_(list(tags))).order_by(run_tag.c.key)
        for tag in connection.execute(wanted):
            tags[tag.run_id][tag.key] = tag.value
        now = database_now(connection, self.database)
        return [read_run(row, tags=tags[row.id], now=now) for row in found]


def _find(connection: Connection, run_id: str) -> Row[Any]:
    row = connection.execute(select(run).where(run.c.id == run_id)).one_or_none()
    if row is None:
        raise NotFound("run", run_id)
    return row

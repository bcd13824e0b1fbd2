"""What a model was asked, row by row, with the labels that came since."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, select, update

from infra.database.engine import Database
from infra.database.interaction_tables import interaction as table
from infra.database.monitoring_tables import feedback
from monitoring.interactions import Query

BATCH = 1_000


@dataclass(frozen=True, slots=True)
class LoggedRow:
    """A row that a model was asked."""

    at: datetime
    features: Mapping[str, Any]
    keys: Mapping[str, Any] | None
    """Of a model with feature views, the keys and the time by which they were joined."""
    label: str | None
    """What was right, as it was said last; None where nobody looked."""


def count(database: Database, model: str) -> int:
    """Return how many rows a model was asked, whether or not their inputs were kept."""
    with database.read() as connection:
        counted = select(func.count()).select_from(table).where(*_conditions(model))
        return int(connection.execute(counted).scalar_one())


def read(database: Database, model: str, *, most: int) -> Iterator[Sequence[LoggedRow]]:
    """Yield the rows whose inputs were kept, in batches, in the order in which they were written.

    Args:
        database: of the interactions.
        model: with `model/`.
        most: rows, the latest, that are looked at.
    """
    content = table.c.content
    kept_of = (content["features"].label("features"), content["keys"].label("keys"))
    statement = select(table.c.number, table.c.id, table.c.at, *kept_of)
    statement = statement.where(*_conditions(model)).order_by(table.c.number).limit(BATCH)
    last = _before(database, model, most)
    while True:
        with database.read() as connection:
            rows = connection.execute(statement.where(table.c.number > last)).fetchall()
            labels = _labels(connection, [row.id for row in rows])
        if not rows:
            return
        last = rows[-1].number
        kept = [row for row in rows if isinstance(row.features, Mapping)]
        if kept:
            yield [
                LoggedRow(row.at, row.features, _mapping(row.keys), labels.get(row.id))
                for row in kept
            ]


def erase(
    database: Database,
    query: Query,
    holds: Callable[[Mapping[str, Any]], bool],
    *,
    dry_run: bool = False,
) -> int:
    """Remove what is kept of predictions for some rows; that they were answered stays.

    Args:
        database: of the interactions.
        query: the predictions that are looked through.
        holds: whether a row, by what was kept of its columns, is meant.
        dry_run: only count.

    Returns:
        How many.
    """
    which = [*query.conditions(), table.c.kind == "prediction", table.c.content.is_not(None)]
    statement = select(table.c.number, table.c.id, table.c.content).where(*which)
    last = erased = 0
    while True:
        with database.read() as connection:
            rows = connection.execute(
                statement.where(table.c.number > last).order_by(table.c.number).limit(BATCH)
            ).fetchall()
        if not rows:
            return erased
        last = rows[-1].number
        meant = [row for row in rows if holds(row_of(row.content))]
        erased += len(meant)
        if meant and not dry_run:
            with database.write() as connection:
                numbers, ids = [row.number for row in meant], [row.id for row in meant]
                mine = table.c.number.in_(numbers)
                connection.execute(update(table).where(mine).values(content=None))
                said = feedback.c.interaction_id.in_(ids)
                connection.execute(update(feedback).where(said).values(text=None))


def row_of(content: Any) -> Mapping[str, Any]:
    """Return what was kept of a row's columns, and of what feature views were joined by."""
    if not isinstance(content, Mapping):
        return {}
    return {**(_mapping(content.get("features")) or {}), **(_mapping(content.get("keys")) or {})}


def _mapping(kept: Any) -> Mapping[str, Any] | None:
    return kept if isinstance(kept, Mapping) else None


def _conditions(model: str) -> list[ColumnElement[bool]]:
    query = Query(kind="prediction", model=model, outcome="answered", copies=False)
    return list(query.conditions())


def _before(database: Database, model: str, most: int) -> int:
    """Return the number of the latest row that is not read; 0 where all are."""
    numbers = select(table.c.number).where(*_conditions(model)).order_by(table.c.number.desc())
    with database.read() as connection:
        found = connection.execute(numbers.offset(most).limit(1)).scalar_one_or_none()
    return 0 if found is None else int(found)


def _labels(connection: Connection, ids: Sequence[str]) -> dict[str, str]:
    rows = connection.execute(
        select(feedback.c.interaction_id, feedback.c.value)
        .where(feedback.c.interaction_id.in_(ids), feedback.c.kind == "label")
        .order_by(feedback.c.number)
    )
    return {row.interaction_id: row.value for row in rows}

"""What a model was asked, row by row, with the labels that came since."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select

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
    label: str | None
    """What was right, as it was said last; None where nobody looked."""


def read(database: Database, model: str) -> Iterator[LoggedRow]:
    """Yield the rows whose inputs were kept, in the order in which they were written.

    Args:
        database: of the interactions.
        model: with `model/`.
    """
    query = Query(kind="prediction", model=model, outcome="answered", copies=False)
    statement = select(table.c.number, table.c.id, table.c.at, table.c.content)
    statement = statement.where(*query.conditions()).order_by(table.c.number).limit(BATCH)
    last = 0
    while True:
        with database.read() as connection:
            rows = connection.execute(statement.where(table.c.number > last)).fetchall()
            labels = _labels(connection, [row.id for row in rows])
        if not rows:
            return
        last = rows[-1].number
        for row in rows:
            features = (row.content or {}).get("features")
            if isinstance(features, Mapping):
                yield LoggedRow(row.at, features, labels.get(row.id))


def _labels(connection: Connection, ids: Sequence[str]) -> dict[str, str]:
    rows = connection.execute(
        select(feedback.c.interaction_id, feedback.c.value)
        .where(feedback.c.interaction_id.in_(ids), feedback.c.kind == "label")
        .order_by(feedback.c.number)
    )
    return {row.interaction_id: row.value for row in rows}

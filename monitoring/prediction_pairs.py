"""What two versions of a model predicted for the same rows, with the labels that came since."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select

from infra.database.engine import Database
from infra.database.interaction_tables import interaction as table
from infra.database.monitoring_tables import feedback

_COPY = "-shadow"
COPIES = f"%{_COPY}"
"""The ids of copies, as a pattern of SQL."""


def copy_of(id_: str) -> str:
    """Return the id of what the other version predicted for a row."""
    return id_ + _COPY


@dataclass(frozen=True, slots=True)
class Side:
    """What a version made of a row."""

    prediction: Any
    """None where it failed, or nothing is kept."""
    has_failed: bool
    seconds: float
    is_told: bool
    """Whether it is what the caller was told."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Both versions on one row."""

    request: str
    live: Side
    challenger: Side
    label: str | None = None
    labelled: int | None = None
    """The place in the order in which labels came."""


def read(
    database: Database, model: str, *, live: str, challenger: str, since: datetime, most: int
) -> list[Pair]:
    """Return the rows that both were asked, in the order in which both were known.

    Args:
        database: of the interactions, those that wait written.
        model: with `model/`.
        live: the version that the alias means, as interactions have it, such as `churn@v3`.
        challenger: the other, as well.
        since: from when on.
        most: rows; later ones are left out.
    """
    first, copy = table.alias("first"), table.alias("copy")
    columns = [
        column.label(f"{side}_{name}")
        for side, of in (("first", first), ("copy", copy))
        for name, column in (
            ("upstream", of.c.upstream),
            ("outcome", of.c.outcome),
            ("seconds", of.c.seconds),
            ("content", of.c.content),
        )
    ]
    rows = (
        select(first.c.id, *columns)
        .join(copy, copy.c.id == first.c.id.concat(_COPY))
        .where(
            first.c.at >= since,
            first.c.kind == "prediction",
            first.c.model == model,
            first.c.upstream.in_((live, challenger)),
            copy.c.upstream.in_((live, challenger)),
            first.c.upstream != copy.c.upstream,
        )
        .order_by(copy.c.number)
        .limit(most)
    )
    said = (
        select(feedback.c.interaction_id, feedback.c.number, feedback.c.value)
        .join(table, table.c.id == feedback.c.interaction_id)
        .where(
            table.c.at >= since,
            table.c.kind == "prediction",
            table.c.model == model,
            feedback.c.kind == "label",
        )
        .order_by(feedback.c.number)
    )
    with database.read() as connection:
        found = connection.execute(rows).mappings().all()
        labels: dict[str, tuple[int, str]] = {}
        for row in connection.execute(said):
            place = labels.get(row.interaction_id, (row.number, ""))[0]
            labels[row.interaction_id] = (place, row.value)
    return [_pair(row, live, labels.get(row["id"])) for row in found]


def _pair(row: Any, live: str, said: tuple[int, str] | None) -> Pair:
    sides = {row[f"{name}_upstream"]: _side(row, name) for name in ("first", "copy")}
    mine = sides.pop(live)
    (other,) = sides.values()
    place, label = (None, None) if said is None else said
    return Pair(row["id"].rpartition("-")[0], mine, other, label, place)


def _side(row: Any, name: str) -> Side:
    content = row[f"{name}_content"] or {}
    return Side(
        content.get("prediction"),
        row[f"{name}_outcome"] == "failed",
        row[f"{name}_seconds"],
        name == "first",
    )

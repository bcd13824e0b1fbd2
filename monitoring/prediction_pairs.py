"""What two versions of a model predicted for the same rows, with the labels that came since."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Select, select

from infra.database.engine import Database
from infra.database.interaction_tables import interaction as table
from infra.database.monitoring_tables import feedback

_COPY = "-shadow"
COPIES = f"%{_COPY}"
"""The ids of copies, as a pattern of SQL."""
_first, _copy = table.alias("first"), table.alias("copy")


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
    """What was right, as it was said last; None where nobody looked."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which pairs."""

    model: str
    """With `model/`."""
    live: str
    """The version that the alias means, as interactions have it, such as `churn@v3`."""
    challenger: str
    since: datetime
    most: int
    """Rows; later ones are left out."""


def read(database: Database, wanted: Wanted) -> list[Pair]:
    """Return the rows that both were asked, in the order in which both were known."""
    with database.read() as connection:
        rows = connection.execute(_both(wanted).order_by(_copy.c.number)).mappings()
        return [_pair(row, wanted.live) for row in rows]


def read_labelled(database: Database, wanted: Wanted) -> list[Pair]:
    """Return the rows that have a label, in the order in which the first label of each came."""
    labelled = (
        _both(wanted)
        .add_columns(feedback.c.value)
        .join(feedback, feedback.c.interaction_id == _first.c.id)
        .where(feedback.c.kind == "label")
        .order_by(feedback.c.number)
    )
    found: dict[str, Pair] = {}
    with database.read() as connection:
        for row in connection.execute(labelled).mappings():
            before = found.get(row["id"]) or _pair(row, wanted.live)
            found[row["id"]] = replace(before, label=row["value"])
    return list(found.values())


def _both(wanted: Wanted) -> Select[Any]:
    versions = (wanted.live, wanted.challenger)
    columns = [
        of.c[name].label(f"{of.name}_{name}")
        for of in (_first, _copy)
        for name in ("upstream", "outcome", "seconds", "content")
    ]
    return (
        select(_first.c.id, *columns)
        .join(_copy, _copy.c.id == _first.c.id.concat(_COPY))
        .where(
            _first.c.at >= wanted.since,
            _first.c.kind == "prediction",
            _first.c.model == wanted.model,
            _first.c.upstream.in_(versions),
            _copy.c.upstream.in_(versions),
            _first.c.upstream != _copy.c.upstream,
        )
        .limit(wanted.most)
    )


def _pair(row: Any, live: str) -> Pair:
    sides = {row[f"{name}_upstream"]: _side(row, name) for name in ("first", "copy")}
    mine = sides.pop(live)
    (other,) = sides.values()
    return Pair(row["id"].rpartition("-")[0], mine, other)


def _side(row: Any, name: str) -> Side:
    content = row[f"{name}_content"] or {}
    return Side(
        content.get("prediction"),
        row[f"{name}_outcome"] == "failed",
        row[f"{name}_seconds"],
        name == "first",
    )

"""What two versions of a model predicted for the same rows, with the labels that came since."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, func, select

from infra.database.engine import Database
from infra.database.interaction_tables import interaction as table
from infra.database.monitoring_tables import feedback

_COPY = "-shadow"
COPIES = f"%{_COPY}"
"""The ids of copies, as a pattern of SQL."""
_FIRST_ROW = "-0"
_first, _copy = table.alias("first"), table.alias("copy")


def copy_of(id_: str) -> str:
    """Return the id of what another version said of the same, and nobody was told."""
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
    """What somebody said was right."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which pairs."""

    model: str
    """With `model/`."""
    live: str
    """The version that the alias means, as interactions have it, such as `churn@v3`."""
    challenger: str
    since: datetime
    round: int
    """Requests that are looked at together."""


@dataclass(frozen=True, slots=True)
class Found:
    """The latest round of requests, in the order in which they were known."""

    pairs: tuple[Pair, ...]
    known: int
    """Requests of all rounds."""
    rounds: int
    """That are full and over."""


def read(database: Database, wanted: Wanted) -> Found:
    """Return the first row of each request that both were asked, of the latest round.

    One that failed fails for all rows of a request, and is as late for each.
    """
    firsts = _both(wanted).where(_first.c.id.like(f"%{_FIRST_ROW}")).order_by(_copy.c.number)
    with database.read() as connection:
        known, rounds = _known(connection, firsts, wanted)
        rows = connection.execute(_latest(firsts, wanted, rounds)).mappings()
        return Found(tuple(_pair(row, wanted.live) for row in rows), known, rounds)


def read_labelled(database: Database, wanted: Wanted) -> Found:
    """Return each label of the row that was labelled first, for the requests of the latest round.

    Requests are known in the order of their first labels, and labels in that in which they came.
    """
    request, first = func.rtrim(_first.c.id, "0123456789"), func.min(feedback.c.number)
    firsts = (
        _both(wanted)
        .join(feedback, feedback.c.interaction_id == _first.c.id)
        .where(feedback.c.kind == "label")
        .with_only_columns(first.label("number"))
        .group_by(request)
        .order_by(first)
    )
    with database.read() as connection:
        known, rounds = _known(connection, firsts, wanted)
        chosen = _latest(firsts, wanted, rounds).subquery()
        earliest, said = feedback.alias("earliest"), feedback.alias("said")
        labels = (
            _both(wanted)
            .add_columns(said.c.value)
            .join(earliest, earliest.c.interaction_id == _first.c.id)
            .join(chosen, chosen.c.number == earliest.c.number)
            .join(said, said.c.interaction_id == _first.c.id)
            .where(said.c.kind == "label")
            .order_by(said.c.number)
        )
        rows = connection.execute(labels).mappings()
        pairs = tuple(_pair(row, wanted.live, row["value"]) for row in rows)
        return Found(pairs, known, rounds)


def _known(connection: Connection, firsts: Select[Any], wanted: Wanted) -> tuple[int, int]:
    """Return how many requests there are, and how many rounds before the latest."""
    counted = select(func.count()).select_from(firsts.order_by(None).subquery())
    known = int(connection.execute(counted).scalar_one())
    return known, max(known - 1, 0) // wanted.round


def _latest(firsts: Select[Any], wanted: Wanted, rounds: int) -> Select[Any]:
    return firsts.offset(rounds * wanted.round).limit(wanted.round)


def _both(wanted: Wanted) -> Select[Any]:
    versions = (wanted.live, wanted.challenger)
    columns = [
        column.label(f"{of.name}_{name}")
        for of in (_first, _copy)
        for name, column in (
            ("upstream", of.c.upstream),
            ("outcome", of.c.outcome),
            ("seconds", of.c.seconds),
            ("prediction", of.c.content["prediction"]),
        )
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
    )


def _pair(row: Any, live: str, label: str | None = None) -> Pair:
    sides = {row[f"{name}_upstream"]: _side(row, name) for name in ("first", "copy")}
    mine = sides.pop(live)
    (other,) = sides.values()
    return Pair(row["id"].rpartition("-")[0], mine, other, label)


def _side(row: Any, name: str) -> Side:
    return Side(
        row[f"{name}_prediction"],
        row[f"{name}_outcome"] == "failed",
        row[f"{name}_seconds"],
        name == "first",
    )

"""What was logged to a run since somebody last looked, in pieces of bounded size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from sqlalchemy import Connection, Row, select

from infra.tracking.points import POINT, Points, unpack
from infra.tracking.tables import run_block, run_series
from infra.tracking.writing import SMALL

POINTS_AT_ONCE = 10_000


@dataclass(frozen=True, slots=True)
class Position:
    """How far a reader has come."""

    flush: int = 0
    """Every block last written by this flush, or one before, was read as it then was."""
    partial: Mapping[str, int] = field(default_factory=dict)
    """Of blocks that may still grow, how many points were read, by id as text."""


@dataclass(frozen=True, slots=True)
class Changes:
    points: Mapping[str, Points]
    """By metric, in the order they were logged."""
    position: Position
    """To go on from."""


def read_changes(connection: Connection, run_id: str, position: Position) -> Changes | None:
    """Return the next points of a run after `position`; `None` if there are none."""
    rows = connection.execute(
        select(run_block.c.id, run_block.c.length, run_block.c.flush, run_series.c.name)
        .join_from(run_block, run_series, run_block.c.series_id == run_series.c.id)
        .where(run_series.c.run_id == run_id, run_block.c.flush > position.flush)
        .order_by(run_block.c.flush, run_block.c.id)
    )
    taken: list[Row[Any, Any, Any, Any]] = []
    total = 0
    for _, flushed in groupby(rows.all(), key=lambda row: row.flush):
        if total >= POINTS_AT_ONCE:
            break
        taken += flushed
        total = sum(row.length for row in taken)
    if not taken:
        return None
    partial = dict(position.partial)
    read: dict[str, list[bytes]] = {}
    for row in sorted(taken, key=lambda row: row.id):
        seen = partial.pop(str(row.id), 0)
        data = connection.execute(
            select(run_block.c.points).where(run_block.c.id == row.id)
        ).scalar_one()
        read.setdefault(row.name, []).append(data[seen * POINT.itemsize :])
        if row.length < SMALL:
            partial[str(row.id)] = row.length
    points = {name: unpack(blocks) for name, blocks in read.items()}
    return Changes(points, Position(taken[-1].flush, partial))

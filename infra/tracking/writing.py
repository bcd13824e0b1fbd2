"""Appends a run's points to its series and blocks, each batch in one transaction."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from sqlalchemy import Connection, bindparam, func, insert, select, update

from infra.database.engine import Database
from infra.tracking.buffer import Batch
from infra.tracking.points import POINT, Points, unpack
from infra.tracking.tables import run, run_block, run_series

SMALL = 512
"""Points; a block with fewer is filled further by the next batch, so that a slow metric does not
leave a row per point."""
LARGE = 4096


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended."""

    state: str
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class _Tail:
    """The last block of a series, while it is small."""

    block_id: int
    points: bytes


class Writer:
    """Writes one run's points; used by one thread at a time.

    Several of them, in several processes, may write one run: they follow each other.
    """

    def __init__(self, database: Database, run_id: str) -> None:
        self._database = database
        self._run_id = run_id
        self._series: dict[str, int] = {}
        self._tails: dict[str, _Tail] = {}

    def write(self, batch: Batch, *, dropped: int = 0, ending: Ending | None = None) -> bool:
        """Append a batch, show that the run lives, and say how it ended if it did.

        Returns `False` if somebody deleted the run.
        """
        with self._database.write() as connection:
            now = database_now(connection, self._database)
            values: dict[str, Any] = {"seen_at": now}
            if batch:
                values["flush"] = run.c.flush + 1
            if dropped:
                values["dropped"] = run.c.dropped + dropped
            if ending is not None:
                values |= {
                    "state": ending.state,
                    "exit_reason": ending.reason,
                    "finished_at": now,
                }
            # The row is held from here on, so that the writers of one run follow each other.
            flush = connection.execute(
                update(run).where(run.c.id == self._run_id).values(values).returning(run.c.flush)
            ).scalar()
            if flush is None:
                return False
            series, tails = self._append(connection, batch, flush) if batch else ({}, {})
        self._series |= series
        for name, tail in tails.items():
            if tail is None:
                self._tails.pop(name, None)
            else:
                self._tails[name] = tail
        return True

    def _append(
        self, connection: Connection, batch: Batch, flush: int
    ) -> tuple[dict[str, int], dict[str, _Tail | None]]:
        series = self._find_series(connection, batch)
        _summarise(connection, {series[name]: unpack([data]) for name, data in batch.items()})
        grown, fresh = [], []
        tails: dict[str, _Tail | None] = {}
        for name, data in batch.items():
            tail = self._tails.get(name)
            first, *rest = _blocks((tail.points if tail else b"") + data)
            if tail is None:
                rest.insert(0, first)
            else:
                grown.append({"block": tail.block_id, **_row(first, flush)})
                tails[name] = _Tail(tail.block_id, first) if _is_small(first) else None
            fresh += [(name, block) for block in rest]
        if grown:
            connection.execute(
                update(run_block)
                .where(run_block.c.id == bindparam("block"))
                .values(
                    length=bindparam("length"), flush=bindparam("flush"), points=bindparam("points")
                ),
                grown,
            )
        if fresh:
            rows = [{"series_id": series[name], **_row(block, flush)} for name, block in fresh]
            ids = connection.scalars(
                insert(run_block).returning(run_block.c.id, sort_by_parameter_order=True), rows
            ).all()
            for (name, block), block_id in zip(fresh, ids, strict=True):
                tails[name] = _Tail(block_id, block) if _is_small(block) else None
        return series, tails

    def _find_series(self, connection: Connection, names: Iterable[str]) -> dict[str, int]:
        """Return the series of some metrics, those that are new after entering them."""
        unknown = [name for name in names if name not in self._series]
        if not unknown:
            return self._series
        rows = connection.execute(
            select(run_series.c.name, run_series.c.id).where(
                run_series.c.run_id == self._run_id, run_series.c.name.in_(unknown)
            )
        )
        found = {row.name: row.id for row in rows}
        new = [name for name in unknown if name not in found]
        if new:
            zero = {"length": 0, "last_step": 0, "last_at": 0.0}
            ids = connection.scalars(
                insert(run_series).returning(run_series.c.id, sort_by_parameter_order=True),
                [{"run_id": self._run_id, "name": name, **zero} for name in new],
            ).all()
            found |= dict(zip(new, ids, strict=True))
        return self._series | found


def database_now(connection: Connection, database: Database) -> datetime:
    """Return the time by the one clock that everybody who uses this database can read."""
    if database.is_sqlite:  # all on this machine
        return datetime.now(UTC)
    now: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
    return now.astimezone(UTC)


def _summarise(connection: Connection, added: Mapping[int, Points]) -> None:
    """Bring count, last, lowest and highest of the series up to date."""
    rows = connection.execute(select(run_series).where(run_series.c.id.in_(list(added))))
    connection.execute(
        update(run_series)
        .where(run_series.c.id == bindparam("series"))
        .values({name: bindparam(f"new_{name}") for name in _SUMMARY}),
        [
            {
                "series": row.id,
                **{f"new_{k}": v for k, v in _merge(row._asdict(), added[row.id]).items()},
            }
            for row in rows
        ],
    )


_SUMMARY = ("length", "last_step", "last_at", "last", "low_step", "low", "high_step", "high")


def _merge(before: Mapping[str, Any], added: Points) -> dict[str, Any]:
    values = added.values
    last = float(values[-1])
    merged = {
        "length": before["length"] + len(added),
        "last_step": int(added.steps[-1]),
        "last_at": float(added.times[-1]),
        "last": None if math.isnan(last) else last,
        **{name: before[name] for name in ("low_step", "low", "high_step", "high")},
    }
    if not np.isnan(values).all():
        low, high = int(np.nanargmin(values)), int(np.nanargmax(values))
        if merged["low"] is None or values[low] < merged["low"]:
            merged["low"], merged["low_step"] = float(values[low]), int(added.steps[low])
        if merged["high"] is None or values[high] > merged["high"]:
            merged["high"], merged["high_step"] = float(values[high]), int(added.steps[high])
    return merged


def _blocks(data: bytes) -> list[bytes]:
    size = LARGE * POINT.itemsize
    return [data[start : start + size] for start in range(0, len(data), size)]


def _row(block: bytes, flush: int) -> dict[str, Any]:
    return {"length": len(block) // POINT.itemsize, "flush": flush, "points": block}


def _is_small(block: bytes) -> bool:
    return len(block) < SMALL * POINT.itemsize

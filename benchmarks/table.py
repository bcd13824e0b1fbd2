"""Rows of a benchmark, shown as a table or written as JSON."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Spread:
    """The samples of one figure, shown by their median, smallest and largest."""

    samples: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.samples:
            raise ValueError("A figure needs at least one sample")

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def low(self) -> float:
        return min(self.samples)

    @property
    def high(self) -> float:
        return max(self.samples)


@dataclass(frozen=True, slots=True)
class Bar:
    """What our figure has to reach."""

    limit: float
    at_least: bool
    """True when larger is better."""

    def is_met(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit


@dataclass(frozen=True, slots=True)
class Row:
    """One metric, ours beside a peer's."""

    metric: str
    ours: Spread | None
    peer: Spread | None = None
    peer_name: str = ""
    unit: str = ""
    note: str = ""
    """Why a figure is absent, or what it must be read with."""
    bar: Bar | None = None

    @property
    def ratio(self) -> float | None:
        """Our median over the peer's; None where one of them is absent or the peer's is zero."""
        if self.ours is None or self.peer is None or self.peer.median == 0:
            return None
        return self.ours.median / self.peer.median


def render(console: Console, name: str, rows: Sequence[Row], *, caption: str) -> None:
    """Print the rows as a table: metric, ours, peer, ratio, bar."""
    table = Table(title=f"ragstone benchmark: {name}", caption=caption, caption_justify="left")
    for heading in ("metric", "ours", "peer", "ratio", "bar"):
        table.add_column(heading, justify="left" if heading in {"metric", "peer"} else "right")
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        table.add_row(_metric(row), _spread(row.ours), _peer(row), ratio, _bar(row))
    console.print(table)


def to_json(
    name: str, rows: Sequence[Row], *, machine: dict[str, Any], at: datetime
) -> dict[str, Any]:
    """Return the run as one JSON value: what was measured, when, and on what."""
    return {
        "benchmark": name,
        "date": at.isoformat(timespec="seconds"),
        "machine": machine,
        "rows": [_row_to_json(row) for row in rows],
    }


def write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _row_to_json(row: Row) -> dict[str, Any]:
    return {
        "metric": row.metric,
        "unit": row.unit,
        "ours": _spread_to_json(row.ours),
        "peer": _spread_to_json(row.peer),
        "peer_name": row.peer_name,
        "ratio": row.ratio,
        "note": row.note,
        "bar": None
        if row.bar is None
        else {
            "limit": row.bar.limit,
            "at_least": row.bar.at_least,
            "met": row.ours is not None and row.bar.is_met(row.ours.median),
        },
    }


def _spread_to_json(spread: Spread | None) -> dict[str, Any] | None:
    if spread is None:
        return None
    return {
        "median": spread.median,
        "min": spread.low,
        "max": spread.high,
        "samples": list(spread.samples),
    }


def _metric(row: Row) -> str:
    return f"{row.metric} [dim]{row.unit}[/dim]" if row.unit else row.metric


def _spread(spread: Spread | None) -> str:
    if spread is None:
        return ""
    middle = _number(spread.median)
    if len(spread.samples) == 1:
        return middle
    return f"{middle} [dim]({_number(spread.low)}..{_number(spread.high)})[/dim]"


def _peer(row: Row) -> str:
    parts = [row.peer_name, _spread(row.peer), f"[dim]{row.note}[/dim]" if row.note else ""]
    return " ".join(part for part in parts if part)


def _bar(row: Row) -> str:
    if row.bar is None:
        return ""
    target = f"{'>=' if row.bar.at_least else '<='} {_number(row.bar.limit)}"
    if row.ours is None:
        return target
    met = row.bar.is_met(row.ours.median)
    return f"{target} {'[green]met[/green]' if met else '[red]missed[/red]'}"


def _number(value: float) -> str:
    """Three significant digits, thousands apart."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"

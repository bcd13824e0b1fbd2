"""The table of a benchmark: ratios, bars, what is shown and what is written."""

from __future__ import annotations

import io
import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import machine, table
from benchmarks.table import Bar, Row, Spread

ROW = Row(
    "chunks", Spread((30.0, 10.0, 20.0)), Spread((5.0,)), "someone", "chunks/s", bar=Bar(15, True)
)


def shown(*rows: Row) -> str:
    console = Console(file=io.StringIO(), width=160)
    table.render(console, "ingest", rows, caption="2 cores")
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_spread_is_its_median_and_extremes() -> None:
    spread = Spread((30.0, 10.0, 25.0, 20.0))
    assert (spread.median, spread.low, spread.high) == (22.5, 10.0, 30.0)


def test_a_figure_without_samples_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        Spread(())


def test_the_ratio_is_our_median_over_the_peers() -> None:
    assert ROW.ratio == 4.0


@pytest.mark.parametrize(
    "row",
    [Row("m", None, Spread((1.0,))), Row("m", Spread((1.0,))), Row("m", ROW.ours, Spread((0.0,)))],
)
def test_there_is_no_ratio_without_two_figures(row: Row) -> None:
    assert row.ratio is None


@pytest.mark.parametrize(
    ("bar", "value", "met"),
    [
        (Bar(0.85, at_least=True), 0.85, True),
        (Bar(0.85, at_least=True), 0.84, False),
        (Bar(8.0, at_least=False), 8.0, True),
        (Bar(8.0, at_least=False), 8.1, False),
    ],
)
def test_a_bar_includes_its_limit(bar: Bar, value: float, met: bool) -> None:
    assert bar.is_met(value) is met


def test_the_table_shows_metric_ours_peer_ratio_and_bar() -> None:
    text = shown(ROW)
    for part in ("chunks/s", "20 (10..30)", "someone 5", "4.00", ">= 15 met"):
        assert part in text


def test_a_missed_bar_and_an_absent_peer_are_said() -> None:
    text = shown(Row("m", Spread((9.0,)), None, "someone", note="not here", bar=Bar(8, False)))
    assert "someone not here" in text
    assert "<= 8 missed" in text


def test_json_holds_every_sample_the_date_and_the_machine(tmp_path: Path) -> None:
    at = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
    file = tmp_path / "figures.json"
    table.write_json(file, table.to_json("ingest", [ROW], machine=machine.describe(), at=at))
    value = json.loads(file.read_text(encoding="utf-8"))
    assert value["benchmark"] == "ingest"
    assert value["date"] == "2026-11-23T12:00:00+00:00"
    (row,) = value["rows"]
    assert row["ours"] == {"median": 20.0, "min": 10.0, "max": 30.0, "samples": [30.0, 10.0, 20.0]}
    assert (row["peer_name"], row["ratio"]) == ("someone", 4.0)
    assert row["bar"] == {"limit": 15, "at_least": True, "met": True}


def test_the_machine_is_described() -> None:
    description = machine.describe()
    assert description["cores"] == len(os.sched_getaffinity(0))
    assert description["memory_gib"] > 0
    assert description["cpu"]
    assert len(description["load_average"]) == 3
    assert {"numpy", "faiss-cpu", "sqlalchemy"} <= description["packages"].keys()

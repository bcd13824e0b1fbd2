"""Metric points: nothing lost, nothing reordered, no extreme hidden, however they are written."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.tracking.changes import Position, read_changes
from infra.tracking.points import Points, downsample, pack, unpack
from infra.tracking.tracker import Tracker
from infra.tracking.writing import LARGE, SMALL

VALUES = st.floats(allow_nan=True, allow_infinity=True)
STEPS = st.integers(-(2**63), 2**63 - 1)
NAMES = st.sampled_from(["loss", "train/loss", "eval/precision@5"])
FLUSH = "flush"
SHARED = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def points_of(rows: list[tuple[int, float]]) -> Points:
    return Points(
        np.array([step for step, _ in rows], np.int64),
        np.arange(len(rows), dtype=np.float64),
        np.array([value for _, value in rows], np.float64),
    )


def bits(values: Any) -> list[int]:
    found: list[int] = np.asarray(values, np.float64).view(np.uint64).tolist()
    return found


@given(st.lists(st.tuples(STEPS, VALUES)), st.integers(0, 50))
def test_blocks_hold_points_to_the_bit(rows: list[tuple[int, float]], middle: int) -> None:
    read = unpack([pack(points_of(rows[:middle])), pack(points_of(rows[middle:]))])
    assert read.steps.tolist() == [step for step, _ in rows]
    assert bits(read.values) == bits([value for _, value in rows])


@given(st.lists(st.tuples(STEPS, VALUES), min_size=1), st.integers(1, 40))
def test_downsampling_keeps_extremes_and_counts_every_point(
    rows: list[tuple[int, float]], number: int
) -> None:
    buckets = downsample(points_of(rows), number)
    values = [value for _, value in rows]
    numbers = [value for value in values if not math.isnan(value)]
    assert 1 <= len(buckets) <= number
    assert sum(bucket.count for bucket in buckets) == len(rows)
    assert sum(bucket.nan for bucket in buckets) == len(values) - len(numbers)
    lows = [bucket.low for bucket in buckets if not math.isnan(bucket.low)]
    highs = [bucket.high for bucket in buckets if not math.isnan(bucket.high)]
    assert min(lows, default=None) == min(numbers, default=None)
    assert max(highs, default=None) == max(numbers, default=None)
    top = max(step for step, _ in rows)
    last = [value for step, value in rows if step == top][-1]
    assert bits([buckets[-1].last]) == bits([last])
    assert buckets[0].first_step == min(step for step, _ in rows)
    edges = [step for bucket in buckets for step in (bucket.first_step, bucket.last_step)]
    assert edges == sorted(edges)


def test_as_many_buckets_as_points_are_the_points() -> None:
    rows = [(3, 1.0), (1, 2.0), (2, math.inf)]
    buckets = downsample(points_of(rows), 10)
    assert [(b.first_step, b.last, b.count) for b in buckets] == [
        (1, 2.0, 1),
        (2, math.inf, 1),
        (3, 1.0, 1),
    ]


def test_no_points_are_no_buckets() -> None:
    assert downsample(points_of([]), 5) == []


@SHARED
@given(st.lists(st.one_of(st.just(FLUSH), st.tuples(NAMES, STEPS, VALUES)), max_size=60))
def test_what_was_logged_is_read_back_in_order(local: Tracker, events: list[Any]) -> None:
    logged: dict[str, list[tuple[int, float]]] = {}
    with local.run("test") as run:
        for event in events:
            if event == FLUSH:
                run.flush()
                continue
            name, step, value = event
            run.log({name: value}, step=step)
            logged.setdefault(name, []).append((step, value))
    assert {each.name: each.count for each in local.runs.series(run.id)} == {
        name: len(rows) for name, rows in logged.items()
    }
    for series in local.runs.series(run.id):
        steps, values = zip(*logged[series.name], strict=True)
        read = local.runs.points(run.id, series.name)
        assert read.steps.tolist() == list(steps)
        assert bits(read.values) == bits(values)
        numbers = [value for value in values if not math.isnan(value)]
        assert series.last == values[-1] or math.isnan(series.last) == math.isnan(values[-1])
        assert series.low == min(numbers, default=None)
        assert series.high == max(numbers, default=None)


@SHARED
@given(
    st.lists(
        st.tuples(NAMES, st.sampled_from([1, 7, SMALL - 1, SMALL, LARGE + 3]), st.booleans()),
        min_size=1,
        max_size=12,
    )
)
def test_a_follower_gets_every_point_once_and_in_order(
    local: Tracker, batches: list[tuple[str, int, bool]]
) -> None:
    position = Position()
    followed: dict[str, list[float]] = {}
    logged: dict[str, list[float]] = {}

    def follow(position: Position) -> Position:
        with local.runs.database.read() as connection:
            while changes := read_changes(connection, run.id, position):
                for name, points in changes.points.items():
                    followed.setdefault(name, []).extend(points.values.tolist())
                position = changes.position
        return position

    with local.run("test") as run:
        for name, size, looks in batches:
            for _ in range(size):
                known = logged.setdefault(name, [])
                run.log({name: float(len(known))})
                known.append(float(len(known)))
            run.flush()
            if looks:
                position = follow(position)
        follow(position)
    assert followed == logged


def test_numbers_survive_both_databases(tracker: Tracker) -> None:
    values = [math.nan, -math.inf, math.inf, 5e-324, -0.0, 1.7976931348623157e308]
    with tracker.run("test") as run:
        for value in values:
            run.log({"x": value})
        run.log({"only nan": math.nan})
    assert bits(tracker.runs.points(run.id, "x").values) == bits(values)
    nothing, x = tracker.runs.series(run.id)
    assert math.isnan(nothing.last)
    assert (nothing.low, nothing.high) == (None, None)
    assert (x.low, x.low_step, x.high, x.high_step) == (-math.inf, 1, math.inf, 2)


def test_a_metric_logged_now_and_then_does_not_leave_a_row_per_point(local: Tracker) -> None:
    from infra.tracking.tables import run_block

    with local.run("test") as run:
        for number in range(30):
            run.log({"loss": number})
            run.flush()
    with local.runs.database.read() as connection:
        assert [row.length for row in connection.execute(run_block.select())] == [30]


@pytest.mark.parametrize("count", [200_000, pytest.param(2_000_000, marks=pytest.mark.slow)])
def test_very_many_points_are_read_as_a_plot(local: Tracker, count: int) -> None:
    values = np.sin(np.arange(count) / 1000)
    values[123_456] = 7.0
    with local.run("test") as run:
        for value in values.tolist():
            run.log({"loss": value})
    buckets = downsample(local.runs.points(run.id, "loss"), 500)
    assert len(buckets) <= 500
    assert sum(bucket.count for bucket in buckets) == count
    assert max(bucket.high for bucket in buckets) == 7.0
    assert buckets[-1].last == pytest.approx(values[-1])

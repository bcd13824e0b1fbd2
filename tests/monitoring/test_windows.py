from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from infra.artifacts.store import open_store
from infra.database.engine import Database
from infra.errors import InvalidRequest, NotFound
from monitoring import references
from monitoring.columns import Column
from monitoring.interactions import Query
from monitoring.references import alike, open_reference, pin
from monitoring.reservoir import Reservoir
from monitoring.windows import Window, same_hours, seconds_of

START = datetime(2026, 11, 2, tzinfo=UTC)
"""A Monday."""
HOUR = timedelta(hours=1)


def test_columns_are_of_the_kind_that_their_values_say() -> None:
    kinds = {
        "numbers": [1, 2.5, None],
        "categories": ["a", None, "b"],
        "vectors": [[1.0, 2.0], [3.0, 4.0], None],
        "times": [START, START + HOUR, None],
        "nothing": [None, None, None],
    }
    for kind, values in kinds.items():
        column = Column.of(values)
        assert column.kind == kind
        assert len(column) == 3
        assert column.is_missing().any()
    assert Column.of([True, False]).labels == ("true", "false")
    assert Column.of(np.array([3, 4]), "categories").labels == ("3", "4")
    assert Column.of(["a", 1, None]).kind == "categories"
    assert Column.of(pa.chunked_array([[1], [2]])).data.tolist() == [1.0, 2.0]
    assert Column.of([["a"], ["a", "b"], None]).labels == ("['a']", "['a', 'b']")
    assert Column.of([[[1.0]], [[2.0]]]).kind == "categories"
    assert Column.of([2**80, 1]).kind == "categories"
    with pytest.raises(InvalidRequest, match="cannot be read as 'vectors'"):
        Column.of(["a", "b"], "vectors")


def test_values_that_are_not_finite_are_missing_and_the_callers_array_stays() -> None:
    values = np.array([1.0, np.inf, np.nan])
    assert Column.of(values).is_missing().tolist() == [False, True, True]
    assert np.isinf(values[1])


def test_vectors_of_another_length_than_the_rest_are_missing() -> None:
    column = Column.of([[1.0, 2.0], [3.0], [4.0, 5.0], [6.0, 7.0]])
    assert column.dimension == 2
    assert column.is_missing().tolist() == [False, True, False, False]


def test_windows_are_the_same_from_arrays_arrow_and_polars() -> None:
    columns = {"x": np.array([1.0, 2.0, 3.0]), "c": ["a", "b", "a"]}
    for source in (columns, pa.table(columns), pl.DataFrame(columns)):
        window = Window.of(source)
        assert window.rows == 3
        assert window.column("x").data.tolist() == [1.0, 2.0, 3.0]
        part = window.take(np.array([True, False, True]))
        assert part.rows == 2
        assert part.column("c").labels == ("a",)
    with pytest.raises(InvalidRequest, match="different lengths"):
        Window.of({"x": [1], "y": [1, 2]})
    with pytest.raises(NotFound, match="did you mean 'count'"):
        Window.of({"count": [1]}).column("counts")


def test_days_are_moments_and_spans_of_time_are_refused_as_times() -> None:
    days = pa.array([START.date(), None, START.date() + 24 * HOUR])
    for type_ in (pa.date32(), pa.date64()):
        found = seconds_of(Window.of({"on": days.cast(type_)}), "on")
        midnight = datetime(START.year, START.month, START.day, tzinfo=UTC).timestamp()
        np.testing.assert_equal(found, [midnight, np.nan, midnight + 86_400])
    for odd in (pa.array([HOUR, None]), pa.array([START.time(), None])):
        window = Window.of({"took": odd})
        assert window.column("took").is_missing().tolist() == [False, True]
        with pytest.raises(InvalidRequest, match="'took' holds spans and no times"):
            seconds_of(window, "took")


def test_a_seasonal_reference_holds_the_same_hours_of_the_week() -> None:
    hours = np.arange(24 * 7 * 4)
    reference = Window.of({"at": START.timestamp() + hours * 3_600.0, "hour": hours})
    monday_nine = Window.of({"x": [1]})
    window = Window(
        monday_nine.names, 1, monday_nine.read, start=START + 9 * HOUR, end=START + 10 * HOUR
    )
    found = same_hours(reference, "at", window).column("hour").data
    assert found.tolist() == [9 + 168 * week for week in range(4)]
    wide = same_hours(reference, "at", window, margin=1).column("hour").data
    assert (wide % 168).tolist() == [8, 9, 10] * 4


def test_an_hour_of_the_week_is_that_of_the_zone_across_a_change_of_the_clock() -> None:
    zone = ZoneInfo("Europe/Berlin")
    summer = datetime(2026, 10, 19, 7, tzinfo=UTC)  # Monday, 9:00 in Berlin
    winter = datetime(2026, 10, 26, 8, tzinfo=UTC)  # Monday, 9:00 in Berlin
    reference = Window.of({"at": [summer.timestamp(), summer.timestamp() + 3_600]})
    window = Window(("x",), 0, lambda _: [], start=winter, end=winter + HOUR)
    found = same_hours(reference, "at", window, zone=zone)
    assert found.column("at").data.tolist() == [summer.timestamp()]


def test_slices_are_the_most_frequent_values() -> None:
    window = Window.of({"c": ["a", "b", "a", None, "c", "b", "a"], "x": np.arange(7)})
    found = window.slices("c", most=2)
    assert {name: part.column("x").data.tolist() for name, part in found.items()} == {
        "a": [0, 2, 6],
        "b": [1, 5],
    }
    with pytest.raises(InvalidRequest, match="categories"):
        window.slices("x", most=2)


def test_of_a_reference_those_rows_count_that_are_asked_for_of_a_window() -> None:
    table = pa.table(
        {
            "id": ["a-1", "c-1", "c-2", "c-2-shadow", "c-3-0-missed", "p-1"],
            "kind": [
                "answer",
                "completion",
                "completion",
                "completion",
                "completion",
                "prediction",
            ],
            "model": ["rag/x", "m", "m", "m", "m", "model/churn"],
            "tag": ["live", "live", "canary", "shadow", "canary", None],
            "tenant": [None, "acme", None, None, "acme", "acme"],
        }
    )
    whole = Window.of(table)

    def ids(**query: Any) -> list[str]:
        asked = Query(**{"copies": False, **query})
        return list(alike(whole, asked).read("id").to_pylist())

    assert ids() == ["a-1", "c-1", "c-2", "p-1"]
    assert ids(copies=True) == table.column("id").to_pylist()
    assert ids(kind="completion") == ["c-1", "c-2"]
    assert ids(kind="completion", tag="canary", copies=True) == ["c-2", "c-3-0-missed"]
    assert ids(tenant="acme") == ["c-1", "p-1"]
    assert ids(kind="answer", tag="canary") == ["a-1"], "a canary beside what was live"
    assert ids(model="other") == ids()
    plain = Window.of({"x": [1, 2]})
    assert alike(plain, Query(kind="answer", copies=False)) is plain


def test_what_is_no_window_is_refused_by_name(tmp_path: Path, database: Database) -> None:
    store = open_store(tmp_path / "store", database)
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "x.txt").write_text("x")
    store.put(tmp_path / "made", "predictions/churn")
    store.put(tmp_path / "made", "model/churn")
    with pytest.raises(InvalidRequest, match="'predictions/churn@v1' is neither a window nor"):
        open_reference(store, "predictions/churn@v1", tmp_path / "one")
    with pytest.raises(InvalidRequest, match="the rows that it was measured on"):
        open_reference(store, "model/churn@v1", tmp_path / "two")


def test_a_pinned_reference_comes_back_as_it_was(tmp_path: Path, database: Database) -> None:
    store = open_store(tmp_path / "store", database)
    rng = np.random.default_rng(0)
    columns = {
        "x": rng.normal(size=50),
        "c": ["a", None] * 25,
        "code": rng.integers(3, size=50),
        "v": rng.normal(size=(50, 4)),
    }
    window = Window.of(columns, kinds={"code": "categories"})
    reference = pin(store, "churn", window)
    assert str(reference) == "window/churn@v1"
    assert pin(store, "churn", window) == reference
    back = open_reference(store, "churn", tmp_path / "out")
    assert back.names == window.names
    for name in window.names:
        before, now = window.column(name), back.column(name)
        assert now.kind == before.kind
        assert now.labels == before.labels
        assert np.array_equal(now.data, before.data, equal_nan=True)
    with pytest.raises(NotFound):
        open_reference(store, "chrun", tmp_path / "none")
    with pytest.raises(InvalidRequest, match="no row"):
        pin(store, "empty", Window.of({"x": []}))


def test_truth_values_of_a_models_reference_are_missing_where_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parquet.write_table(
        pa.table({"vip": [True, None, False], "prediction": [0.1, 0.2, 0.3]}),
        tmp_path / references.MODEL_FILE,
    )
    inputs = SimpleNamespace(inputs=[SimpleNamespace(name="vip")])
    monkeypatch.setattr(references.classical, "read", lambda _: inputs)
    column = references._of_model(tmp_path).column("feature.vip")
    assert column.labels == ("True", "False")
    assert column.is_missing().tolist() == [False, True, False]


def test_a_sample_is_bounded_and_every_row_is_kept_as_often() -> None:
    kept = np.zeros(100)
    for seed in range(400):
        sample = Reservoir(10, seed=seed)
        for first in range(0, 100, 7):
            sample.add({"x": np.arange(first, min(first + 7, 100))})
        values = sample.columns()["x"]
        assert values.size == 10
        assert (np.diff(values) > 0).all()
        kept[values] += 1
    assert sample.seen == 100
    # 40 times each on average, with a standard deviation of 6.
    assert kept.min() > 15
    assert kept.max() < 70


def test_samples_merge_into_one_of_all_rows() -> None:
    first, second = Reservoir(50, seed=1), Reservoir(50, seed=2)
    first.add({"x": np.zeros(900)})
    second.add({"x": np.ones(100)})
    first.merge(second)
    assert first.seen == 1_000
    values = first.columns()["x"]
    assert values.size == 50
    assert 0 < values.sum() < 20  # a tenth of the rows, and not half of the sample
    with pytest.raises(InvalidRequest, match="columns"):
        first.add({"y": np.ones(1)})


def test_columns_of_the_same_rows_stand_beside_each_other_and_others_are_refused() -> None:
    window = Window.of({"a": [1.0, 2.0], "b": ["x", "y"]})
    both = window.beside(Window.of({"b": ["z", "z"], "c": [3.0, 4.0]}))
    assert both.names == ("a", "b", "c")
    assert [both.read(name)[1] for name in both.names] == [2.0, "z", 4.0]
    with pytest.raises(InvalidRequest, match="1 rows cannot stand beside 2"):
        window.beside(Window.of({"c": [3.0]}))

"""Profiles: the same numbers as polars finds, exactly while small and within bounds when large."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.datasets.csv_files import Dialect
from infra.datasets.datasets import Datasets, Options
from infra.datasets.distinct import Distinct
from infra.datasets.frequent import Frequent
from infra.datasets.profile import BINS, Column, Profile
from infra.datasets.profiling import Summary, profile_batches
from infra.datasets.quantiles import Quantiles
from infra.datasets.times import Clock
from infra.errors import NotFound

TABULAR = {
    "adult/train.csv.gz": ("?",),
    "bike_sharing/hour.csv.gz": (),
    "german_credit/german.csv.gz": (),
    "titanic/titanic.csv.gz": (),
    "wine_quality/white.csv.gz": (),
}


def profile_of(table: pa.Table) -> Profile:
    return profile_batches(table.to_batches(), table.schema)


def column_of(values: list[Any], kind: pa.DataType | None = None) -> Column:
    return profile_of(pa.table({"x": pa.array(values, kind)})).column("x")


@pytest.mark.parametrize("name", TABULAR)
def test_profile_of_real_data_is_what_polars_finds(
    datasets: Datasets, shared_data: Path, name: str
) -> None:
    dialect = Dialect(nulls=("", *TABULAR[name]))
    reference = str(datasets.put(shared_data / "tabular" / name, "real", Options(csv=dialect)))
    frame = datasets.frame(reference)
    profile = datasets.profile(reference)
    assert profile.rows == frame.height > 500
    assert [column.name for column in profile.columns] == frame.columns
    for column in profile.columns:
        same_as_polars(column, frame[column.name])
    read = pl.read_csv(
        shared_data / "tabular" / name, null_values=["", *TABULAR[name]], infer_schema_length=None
    )
    assert frame.height == read.height
    assert frame.null_count().row(0) == read.null_count().row(0)
    assert Profile.from_dict(profile.as_dict()) == profile


def same_as_polars(column: Column, series: pl.Series) -> None:
    present = series.drop_nulls()
    assert column.nulls == series.null_count()
    assert column.distinct_exact
    assert column.distinct == present.n_unique()
    counts = dict(present.value_counts().iter_rows())
    for top in column.top:
        if column.kind in ("number", "boolean", "text"):
            assert counts[top.value] == top.count
    if column.distinct <= 100 and column.kind != "time":
        assert {top.value: top.count for top in column.top} == counts
    if column.kind == "number":
        assert column.numbers is not None
        assert (column.minimum, column.maximum) == (present.min(), present.max())
        assert column.numbers.mean == pytest.approx(present.mean(), rel=1e-9, abs=1e-12)
        assert column.numbers.std == pytest.approx(present.std(), rel=1e-9)
        for share in (0.0, 0.05, 0.25, 0.5, 0.75, 0.9, 1.0):
            expected = present.quantile(share, interpolation="linear")
            assert column.numbers.quantile(share) == pytest.approx(expected, rel=1e-9)
        assert sum(column.numbers.counts) == column.numbers.count == len(present)
        assert len(column.numbers.counts) in (1, BINS)
    if column.kind == "text":
        lengths = present.str.len_chars()
        assert column.lengths is not None
        assert (column.lengths.minimum, column.lengths.maximum) == (lengths.min(), lengths.max())
        assert column.lengths.mean == pytest.approx(lengths.mean())


def test_every_kind_of_column_has_a_profile() -> None:
    day = column_of([date(2024, 1, 3), date(1969, 12, 31), None])
    assert (day.kind, day.minimum, day.maximum) == ("time", "1969-12-31", "2024-01-03")
    assert day.numbers is not None
    assert day.numbers.minimum == -86_400
    moment = column_of(
        [datetime(2024, 1, 3, 4, 5, tzinfo=UTC)], pa.timestamp("ms", tz="Europe/Paris")
    )
    assert moment.maximum == "2024-01-03T04:05:00.000Z"
    assert column_of([time(1, 2, 3, 4)]).maximum == "01:02:03.000004"
    assert column_of([timedelta(seconds=90)]).maximum == 90
    flag = column_of([True, False, True, None])
    assert (flag.kind, flag.distinct, flag.nulls) == ("boolean", 2, 1)
    assert [(top.value, top.count) for top in flag.top] == [(True, 2), (False, 1)]
    data = column_of([b"abc", b"", None])
    assert data.lengths is not None
    assert (data.kind, data.distinct, data.lengths.maximum, data.top) == ("binary", 2, 3, ())
    items = column_of([[1, 2], [], None])
    assert items.lengths is not None
    assert (items.kind, items.distinct, items.lengths.mean) == ("nested", None, 1.0)
    assert column_of([[("a", 1)], []], pa.map_(pa.string(), pa.int64())).lengths is not None
    assert column_of([{"a": 1}, None]).nulls == 1
    assert column_of([None, None], pa.null()).kind == "null"
    assert column_of([Decimal("1.10"), Decimal("2.20")]).numbers is not None
    assert column_of([], pa.int64()).numbers is None


def test_numbers_that_are_not_finite_are_counted_apart() -> None:
    column = column_of([1.0, math.nan, math.inf, -math.inf, 3.0, None])
    assert column.numbers is not None
    assert (column.not_finite, column.numbers.count, column.numbers.mean) == (3, 2, 2.0)
    assert (column.minimum, column.maximum) == (1.0, 3.0)
    assert column.distinct == 5
    assert column_of([math.nan]).numbers is None


def test_largest_numbers_break_nothing() -> None:
    column = column_of([1e308, -1e308, 1.7e308, -1.7e308])
    assert column.numbers is not None
    assert sum(column.numbers.counts) == 4
    assert all(map(math.isfinite, column.numbers.quantiles))
    assert column.numbers.std is None
    whole = column_of([2**63 - 1, -(2**63)])
    assert (whole.minimum, whole.maximum) == (-(2**63), 2**63 - 1)
    assert column_of([2**64 - 1], pa.uint64()).maximum == 2**64 - 1
    assert Profile.from_dict(Profile(2, (whole,)).as_dict()).columns == (whole,)


def test_long_text_is_cut_and_told_apart_by_a_hash() -> None:
    first, second = "x" * 500 + "1", "x" * 500 + "2"
    column = column_of([first, first, second])
    assert [top.count for top in column.top] == [2, 1]
    assert len({top.value for top in column.top}) == 2
    assert all(len(top.value) < 120 for top in column.top)
    assert column.minimum == "x" * 100


def test_unknown_column_suggests_a_near_one() -> None:
    with pytest.raises(NotFound, match="did you mean 'x'"):
        profile_of(pa.table({"x": [1]})).column("xx")


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.integers(-50, 50) | st.none(), max_size=30), min_size=1, max_size=4))
def test_profile_does_not_depend_on_how_rows_are_divided(parts: list[list[int | None]]) -> None:
    schema = pa.schema({"x": pa.int64()})
    summaries = []
    for part in parts:
        summary = Summary(schema)
        summary.add(pa.record_batch({"x": pa.array(part, pa.int64())}))
        summaries.append(summary)
    merged = Summary(schema)
    for summary in summaries:
        merged.merge(summary)
    whole = column_of([value for part in parts for value in part], pa.int64())
    found = merged.profile().column("x")
    assert found.top == whole.top
    assert (found.nulls, found.distinct, found.minimum) == (
        whole.nulls,
        whole.distinct,
        whole.minimum,
    )
    if whole.numbers is not None:
        assert found.numbers is not None
        assert found.numbers.quantiles == whole.numbers.quantiles
        assert found.numbers.counts == whole.numbers.counts
        assert found.numbers.mean == pytest.approx(whole.numbers.mean, abs=1e-9)
        assert found.numbers.std == (whole.numbers.std and pytest.approx(whole.numbers.std))


@pytest.mark.parametrize("draw", [np.random.Generator.standard_normal, np.random.Generator.random])
@pytest.mark.parametrize("ordered", [False, True])
def test_quantiles_of_many_values_are_within_one_percent(
    draw: Callable[..., Any], *, ordered: bool
) -> None:
    values = draw(np.random.default_rng(5), 500_000)
    if ordered:
        values.sort()
    sketch = Quantiles(2048)
    for part in np.array_split(values, 37):
        sketch.add(part)
    assert not sketch.exact
    shares = np.linspace(0, 1, 101)
    ranks = np.searchsorted(np.sort(values), sketch.at(shares)) / len(values)
    assert np.abs(ranks - shares).max() < 0.01
    _, weights = sketch.weighted()
    assert weights.sum() == len(values)
    assert len(weights) < 2048 * 12


def test_distinct_values_are_exact_and_then_estimated() -> None:
    few, many, merged = Distinct(2048), Distinct(2048), Distinct(2048)
    hashes = pl.Series(range(300_000)).hash().to_numpy()
    few.add(hashes[:2048])
    assert (few.exact, few.count()) == (True, 2048)
    for part in np.array_split(np.concatenate([hashes, hashes]), 50):
        many.add(part)
    assert not many.exact
    assert many.count() == pytest.approx(300_000, rel=0.07)  # three standard errors
    merged.merge(few)
    merged.merge(many)
    assert merged.count() == many.count()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 30), max_size=200), st.integers(1, 8))
def test_frequent_counts_are_too_low_by_no_more_than_the_error(
    values: list[int], capacity: int
) -> None:
    frequent = Frequent(capacity)
    for start in range(0, len(values), 7):
        frequent.add(Counter(values[start : start + 7]).items())
    true = Counter(values)
    found = dict(frequent.top(1000))
    for value, count in true.items():
        assert 0 <= count - found.get(value, 0) <= frequent.error
    assert len(found) <= 2 * capacity


def test_column_of_many_values_is_summed_up_within_its_bounds() -> None:
    rng = np.random.default_rng(7)
    ids = np.arange(300_000)
    kinds = np.where(rng.random(300_000) < 0.3, "often", ids.astype(str))
    table = pa.table({"id": ids, "kind": kinds})
    profile = profile_batches(table.to_batches(50_000), table.schema)
    column = profile.column("id")
    assert column.numbers is not None
    assert not column.distinct_exact
    assert column.distinct == pytest.approx(300_000, rel=0.02)
    assert column.numbers.quantile(0.5) == pytest.approx(150_000, rel=0.02)
    assert column.numbers.mean == pytest.approx(149_999.5)
    top = profile.column("kind").top[0]
    true = int((kinds == "often").sum())
    assert top.value == "often"
    assert true - profile.column("kind").top_error <= top.count <= true


def test_clock_reads_every_type_of_time() -> None:
    assert Clock.of("date32[day]").show(0) == "1970-01-01"
    assert Clock.of("timestamp[s]").show(10**11) == "5138-11-16T09:46:40"
    assert Clock.of("time32[s]").show(3_661) == "01:01:01"
    assert Clock.of("time64[ns]").show(1) == "00:00:00.000000001"
    assert Clock.of("duration[ms]").show(1500) == 1.5

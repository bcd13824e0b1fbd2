"""Suggested suites: they hold on the data they come from, and notice when it changes."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.datasets.profiling import profile_batches
from infra.expectations import Suite, check, parse_suite, suggest
from infra.expectations.files import open_table

NOW = datetime(2026, 1, 31, tzinfo=UTC)
TABLES = (
    "titanic/titanic",
    "adult/test",
    "bike_sharing/day",
    "wine_quality/red",
    "german_credit/german",
)


def profile_of(frame: pl.DataFrame) -> Any:
    table = frame.to_arrow()
    fields = [pa.field(field.name, plain(field.type)) for field in table.schema]
    table = table.cast(pa.schema(fields))
    return profile_batches(table.to_batches(), table.schema)


def plain(kind: Any) -> Any:
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    return pa.list_(plain(kind.value_type)) if pa.types.is_large_list(kind) else kind


def failures(suite: Suite, frame: pl.DataFrame) -> list[str]:
    report = check(suite, frame, now=NOW)
    return [f"{item.name}: {item.message}" for item in report.results if not item.passed]


def rules(suite: Suite, name: str) -> dict[str, Any]:
    """Return the checks that speak of one column, by rule."""
    return {item.rule: item for item in suite.checks if name in item.subject}


SERIES = {
    "integer": st.lists(st.none() | st.integers(-(2**63), 2**63 - 1)).map(
        lambda values: pl.Series(values, dtype=pl.Int64)
    ),
    "unsigned": st.lists(st.none() | st.integers(0, 2**64 - 1)).map(
        lambda values: pl.Series(values, dtype=pl.UInt64)
    ),
    "float": st.lists(st.none() | st.floats()).map(
        lambda values: pl.Series(values, dtype=pl.Float64)
    ),
    "small float": st.lists(st.floats(width=32)).map(
        lambda values: pl.Series(values, dtype=pl.Float32)
    ),
    "decimal": st.lists(
        st.decimals(-1000, 1000, allow_nan=False, places=3)
    ).map(lambda values: pl.Series(values, dtype=pl.Decimal(12, 3))),
    "text": st.lists(st.none() | st.text(max_size=30)).map(
        lambda values: pl.Series(values, dtype=pl.String)
    ),
    "category": st.lists(st.sampled_from(["NO", "010", "a b", ""]), max_size=60).map(
        lambda values: pl.Series(values, dtype=pl.Categorical)
    ),
    "flag": st.lists(st.none() | st.booleans()).map(
        lambda values: pl.Series(values, dtype=pl.Boolean)
    ),
    "day": st.lists(st.none() | st.dates()).map(lambda values: pl.Series(values, dtype=pl.Date)),
    "moment": st.lists(st.none() | st.datetimes()).map(
        lambda values: pl.Series(values, dtype=pl.Datetime("us"))
    ),
    "fine moment": st.lists(st.integers(-(2**62), 2**62)).map(
        lambda values: pl.Series(values, dtype=pl.Int64).cast(pl.Datetime("ns"))
    ),
    "moment there": st.lists(st.integers(0, 2**41)).map(
        lambda values: pl.Series(values, dtype=pl.Int64).cast(pl.Datetime("ms", "Europe/Berlin"))
    ),
    "list": st.lists(st.lists(st.integers(0, 3), max_size=3)).map(
        lambda values: pl.Series(values, dtype=pl.List(pl.Int64))
    ),
    "nothing": st.integers(0, 30).map(lambda count: pl.Series([None] * count, dtype=pl.Null)),
}  # fmt: skip


@given(st.sampled_from(sorted(SERIES)).flatmap(lambda kind: SERIES[kind]), st.text(max_size=8))
@settings(max_examples=120, deadline=None)
def test_suggested_suite_passes_on_the_data_it_came_from(values: pl.Series, name: str) -> None:
    frame = pl.DataFrame({name: values})
    suite = suggest(frame)
    assert failures(suite, frame) == []
    assert failures(parse_suite(suite.to_yaml()), frame) == []


PROFILED = [kind for kind in SERIES if kind not in {"category"}]


@given(st.sampled_from(PROFILED).flatmap(lambda kind: SERIES[kind]))
@settings(max_examples=60, deadline=None)
def test_suite_suggested_from_a_profile_passes_on_the_data_it_came_from(values: pl.Series) -> None:
    frame = pl.DataFrame({"column": values})
    assert failures(suggest(profile_of(frame)), frame) == []


@pytest.mark.parametrize("table", TABLES)
def test_suggestions_for_real_tables_pass(shared_data: Path, table: str) -> None:
    frame = open_table(shared_data / "tabular" / f"{table}.csv.gz").collect().head(2_000)
    for suite in (suggest(frame, name=table), suggest(profile_of(frame), name=table)):
        assert failures(suite, frame) == []
        assert len(suite.checks) > len(frame.columns)
        assert suite.name == table.replace("/", "-")


def test_suggestions_for_a_real_table_are_what_a_person_would_write(shared_data: Path) -> None:
    frame = open_table(shared_data / "tabular" / "titanic" / "titanic.csv.gz").collect()
    for suite in (suggest(frame), suggest(profile_of(frame))):
        assert rules(suite, "sex")["categories"].values == ("female", "male")
        assert rules(suite, "age")["range"].min == pytest.approx(0.42)
        assert rules(suite, "age")["range"].max == 80
        assert rules(suite, "age")["nulls"].max_failing_share == math.ceil(177 / 0.891) / 1000
        assert rules(suite, "fare")["nulls"].max_failing_share == 0
        assert "unique" not in rules(suite, "fare")
        changed = frame.with_columns(
            sex=pl.lit("unknown"), fare=pl.lit(None, dtype=pl.Float64), age=pl.lit(200.0)
        )
        failed = {line.partition(":")[0] for line in failures(suite, changed)}
        assert {"categories(sex)", "nulls(fare)", "range(age)"} <= failed


def test_key_is_required_and_a_chance_key_only_a_warning() -> None:
    frame = pl.DataFrame({"user_id": range(50), "score": range(100, 150), "group": [1, 2] * 25})
    suite = suggest(frame)
    assert rules(suite, "user_id")["unique"].severity == "required"
    assert rules(suite, "score")["unique"].severity == "warning"
    assert "unique" not in rules(suite, "group")


def test_texts_and_conversations_are_looked_at(shared_data: Path) -> None:
    frame = open_table(shared_data / "chat" / "gsm8k" / "test.jsonl.gz").collect().head(200)
    suite = suggest(frame)
    assert failures(suite, frame) == []
    assert rules(suite, "messages")["chat"].severity == "required"
    assert rules(suite, "question")["language"].languages == ("en",)
    assert rules(suite, "question")["pii"].max_failing_share == 0
    assert rules(suite, "id")["unique"].severity == "required"
    leaky = frame.with_columns(question=pl.lit("write to ada@example.org about the whole matter"))
    assert any(line.startswith("pii(question)") for line in failures(suite, leaky))


def test_faults_that_are_there_are_allowed_and_become_warnings(shared_data: Path) -> None:
    turn = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    frame = pl.DataFrame({"messages": [turn] * 9 + [turn[:1]]})
    suggested = rules(suggest(frame), "messages")["chat"]
    assert (suggested.severity, suggested.max_failing_share) == ("warning", 0.1)


def test_dates_become_ranges_that_yaml_keeps() -> None:
    frame = pl.DataFrame({"day": [date(2024, 1, 1), date(2024, 12, 31)]})
    text = suggest(frame).to_yaml()
    assert "min: 2024-01-01" in text
    assert rules(parse_suite(text), "day")["range"].max == date(2024, 12, 31)


def test_table_without_rows_or_columns_has_a_suite() -> None:
    for frame in (pl.DataFrame(), pl.DataFrame({"a": []}, schema={"a": pl.Int64})):
        assert failures(suggest(frame), frame) == []
        assert failures(suggest(frame.lazy()), frame) == []

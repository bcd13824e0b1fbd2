"""Rules of columns, rows and values: each passes and fails on a few planted rows."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import polars as pl
import pytest

NAN = float("nan")


def test_declared_columns_pass(judge: Any) -> None:
    result = judge(
        {"age": [1], "name": ["a"], "at": [date(2024, 1, 1)]},
        rule="columns",
        columns={"age": "integer", "name": "string", "at": "Date"},
        others="forbid",
        ordered=True,
    )
    assert result.passed
    assert result.message == "3 columns are as declared"


@pytest.mark.parametrize(
    ("columns", "options", "words"),
    [
        ({"age": "integer", "nme": None}, {}, "'nme' is missing"),
        ({"age": "string"}, {}, "'age' holds Int64, not string"),
        ({"age": "Int32"}, {}, "'age' holds Int64, not Int32"),
        ({"age": None}, {"others": "forbid"}, "not declared: 'name'"),
        ({"name": None, "age": None}, {"ordered": True}, "the order is ['age', 'name']"),
    ],
)
def test_other_columns_fail(judge: Any, columns: Any, options: Any, words: str) -> None:
    result = judge({"age": [1], "name": ["a"]}, rule="columns", columns=columns, **options)
    assert not result.passed
    assert words in result.message


def test_optional_column_may_be_absent_but_not_of_another_type(judge: Any) -> None:
    wanted = {"rule": "columns", "columns": {"b": {"type": "integer", "optional": True}}}
    assert judge({"a": [1]}, **wanted).passed
    assert not judge({"b": ["x"]}, **wanted).passed


@pytest.mark.parametrize(
    ("low", "high", "passed"), [(3, 3, True), (4, None, False), (None, 2, False)]
)
def test_rows_are_counted(judge: Any, low: Any, high: Any, passed: bool) -> None:
    result = judge({"a": [1, 2, 3]}, rule="rows", min=low, max=high)
    assert result.passed is passed
    assert result.observed == {"rows": 3}


def test_rows_are_counted_where_a_condition_holds(judge: Any) -> None:
    assert judge({"a": [1, 2, 3]}, rule="rows", max=1, where="a > 2").passed
    assert not judge({"a": [1, 2, 3]}, rule="rows", max=1, where="a > 1").passed


def test_null_and_nan_are_missing(judge: Any) -> None:
    result = judge({"a": [1.0, None, NAN, 4.0]}, rule="nulls", column="a")
    assert (result.passed, result.checked, result.failing) == (False, 4, 2)
    assert [sample.row for sample in result.samples] == [1, 2]
    assert judge({"a": [1.0, 2.0]}, rule="nulls", column="a").passed


def test_a_share_of_rows_may_fail(judge: Any) -> None:
    columns = {"a": [1, None, 3, 4]}
    assert judge(columns, rule="nulls", column="a", max_failing_share=0.25).passed
    result = judge(columns, rule="nulls", column="a", max_failing_share=0.24)
    assert not result.passed
    assert result.message == "1 of 4 rows fail (25.00%); at most 24.00% may"


def test_column_that_shall_be_empty(judge: Any) -> None:
    assert judge({"a": [None, None]}, rule="nulls", column="a", expect="all").passed
    assert not judge({"a": [None, 1]}, rule="nulls", column="a", expect="all").passed


def test_every_row_of_a_repeated_key_fails(judge: Any) -> None:
    result = judge({"id": [1, 2, 1, None, None]}, rule="unique", columns=["id"])
    assert (result.passed, result.checked, result.failing) == (False, 3, 2)
    assert [sample.row for sample in result.samples] == [0, 2]
    assert judge({"id": [1, 2, None, None]}, rule="unique", columns=["id"]).passed


def test_composite_key(judge: Any) -> None:
    columns = {"a": [1, 1, 2], "b": ["x", "y", "x"]}
    assert judge(columns, rule="unique", columns=["a", "b"]).passed
    assert not judge({**columns, "b": ["x", "x", "x"]}, rule="unique", columns=["a", "b"]).passed


def test_missing_part_of_a_key_counts_as_a_value_when_asked(judge: Any) -> None:
    columns = {"a": [1, 1, None, None], "b": [None, None, None, None]}
    assert judge(columns, rule="unique", columns=["a", "b"]).passed
    result = judge(columns, rule="unique", columns=["a", "b"], missing="value")
    assert (result.checked, result.failing) == (2, 2)


@pytest.mark.parametrize(
    ("bounds", "failing"),
    [
        ({"min": 2, "max": 3}, [0, 3]),
        ({"min": 1, "max": 4, "exclusive": "both"}, [0, 3]),
        ({"min": 1, "exclusive": "min"}, [0]),
        ({"max": 4, "exclusive": "max"}, [3]),
        ({"max": 3.5}, [3]),
        ({"min": 0, "max": 10}, []),
    ],
)
@pytest.mark.parametrize("dtype", [pl.Int8, pl.UInt64, pl.Float32, pl.Float64, pl.Decimal(10, 2)])
def test_range_of_numbers(judge: Any, bounds: Any, failing: list[int], dtype: Any) -> None:
    frame = pl.DataFrame({"a": pl.Series([1, 2, 3, 4, None]).cast(dtype)})
    result = judge(frame, rule="range", column="a", **bounds)
    assert [sample.row for sample in result.samples] == failing
    assert result.passed is not bool(failing)
    assert result.checked == 4


@pytest.mark.parametrize("bound", [-5, 1_000, 2**62])
def test_bound_may_lie_beyond_what_the_type_holds(judge: Any, bound: int) -> None:
    frame = pl.DataFrame({"a": pl.Series([1, 2], dtype=pl.UInt8)})
    assert judge(frame, rule="range", column="a", min=bound).passed is (bound < 0)
    assert judge(frame, rule="range", column="a", max=bound).passed is (bound > 0)


def test_nan_is_not_out_of_range_but_infinity_is(judge: Any) -> None:
    result = judge({"a": [1.0, NAN, float("inf")]}, rule="range", column="a", max=5)
    assert (result.checked, result.failing) == (2, 1)
    assert result.samples[0].values == {"a": "inf"}


def test_range_of_dates_includes_the_whole_last_day(judge: Any) -> None:
    last = {"rule": "range", "column": "a", "max": date(2024, 1, 31)}
    assert judge({"a": [date(2024, 1, 31)]}, **last).passed
    assert not judge({"a": [date(2024, 2, 1)]}, **last).passed
    assert judge({"a": [datetime(2024, 1, 31, 23, 59)]}, **last).passed  # noqa: DTZ001
    assert not judge({"a": [datetime(2024, 2, 1)]}, **last).passed  # noqa: DTZ001
    assert not judge({"a": [datetime(2024, 1, 31, 1)]}, exclusive="max", **last).passed  # noqa: DTZ001


def test_range_of_moments_in_a_time_zone(judge: Any) -> None:
    # Half past one at night is twice on that day in Berlin; the bound lies between the two.
    utc = [datetime(2024, 10, 27, 0, 30, tzinfo=UTC), datetime(2024, 10, 27, 1, 30, tzinfo=UTC)]
    moments = pl.Series(utc).dt.convert_time_zone("Europe/Berlin")
    bound = datetime(2024, 10, 27, 1, tzinfo=UTC)
    result = judge(pl.DataFrame({"a": moments}), rule="range", column="a", max=bound)
    assert [sample.row for sample in result.samples] == [1]


@pytest.mark.parametrize(
    ("values", "bound"), [(["a"], 1), ([1], date(2024, 1, 1)), ([date(2024, 1, 1)], 1), ([[1]], 1)]
)
def test_range_of_another_type_fails_with_the_reason(judge: Any, values: Any, bound: Any) -> None:
    result = judge({"a": values}, rule="range", column="a", min=bound)
    assert not result.passed
    assert "holds" in result.message
    assert result.checked is None


def test_categories(judge: Any) -> None:
    columns = {"a": ["x", "y", "z", None, "z"]}
    assert judge(columns, rule="categories", column="a", values=["x", "y", "z"]).passed
    result = judge(columns, rule="categories", column="a", values=["x", "y"])
    assert (result.checked, result.failing) == (4, 2)
    assert result.observed == {"unexpected": {"z": 2}}
    assert judge(columns, rule="categories", column="a", values=["q"], expect="unlisted").passed
    assert not judge(columns, rule="categories", column="a", values=["x"], expect="unlisted").passed


@pytest.mark.parametrize(
    ("values", "listed"),
    [
        (pl.Series([1, 2]), [1, 2]),
        (pl.Series([1, 2], dtype=pl.UInt8), [1.0, 2]),
        (pl.Series([1.5, NAN]), [1.5]),
        (pl.Series([True, False]), [True, False]),
        (pl.Series([date(2024, 1, 1)]), [date(2024, 1, 1)]),
        (pl.Series(["x", "y"], dtype=pl.Categorical), ["x", "y"]),
        (pl.Series(["x", "y"], dtype=pl.Enum(["x", "y"])), ["x", "y", "z"]),
        (pl.Series([Decimal("1.5")]), [1.5]),
        (pl.Series([datetime(2024, 1, 1, tzinfo=UTC)]), [datetime(2024, 1, 1, tzinfo=UTC)]),
    ],
)
def test_categories_of_every_type(judge: Any, values: pl.Series, listed: Any) -> None:
    result = judge(pl.DataFrame({"a": values}), rule="categories", column="a", values=listed)
    assert result.passed, result.message


@pytest.mark.parametrize(
    ("values", "listed"), [([1], ["1"]), (["1"], [1]), ([1], [True]), ([[1]], [1])]
)
def test_category_of_another_type_is_refused(judge: Any, values: Any, listed: Any) -> None:
    result = judge({"a": values}, rule="categories", column="a", values=listed)
    assert not result.passed
    assert "cannot be in it" in result.message


def test_categories_that_must_all_occur(judge: Any) -> None:
    wanted = {"rule": "categories", "column": "a", "values": ["x", "y"], "complete": True}
    assert judge({"a": ["y", "x"]}, **wanted).passed
    assert judge({"a": ["y"]}, **wanted).message == "never occurs: 'x'"


def test_pattern(judge: Any) -> None:
    columns = {"a": ["A-1", "B-22", "c3", None]}
    result = judge(columns, rule="pattern", column="a", regex=r"^[A-Z]-\d+$")
    assert (result.checked, result.failing) == (3, 1)
    assert result.samples[0].values == {"a": "c3"}
    assert judge(columns, rule="pattern", column="a", regex="x", expect="no match").passed
    assert not judge(columns, rule="pattern", column="a", regex="B", expect="no match").passed


def test_pattern_that_is_slow_elsewhere_is_not_here(judge: Any) -> None:
    assert not judge({"a": ["a" * 50_000]}, rule="pattern", column="a", regex="^(a+)+$b").passed


@pytest.mark.parametrize(
    ("statistic", "value"),
    [("min", 1), ("max", 4), ("mean", 2.5), ("median", 2.5), ("sum", 10), ("distinct", 4),
     ("std", 1.2909944487358056), ("distinct_share", 1.0)],
)  # fmt: skip
def test_statistic(judge: Any, statistic: str, value: float) -> None:
    columns = {"a": [1.0, 2.0, 3.0, 4.0, None, NAN]}
    about = {"rule": "statistic", "column": "a", "statistic": statistic}
    result = judge(columns, min=value - 1e-9, max=value + 1e-9, **about)
    assert result.passed, result.message
    assert result.observed[statistic] == pytest.approx(value)
    assert not judge(columns, min=value + 1e-9, **about).passed
    assert not judge(columns, max=value - 1e-9, **about).passed


def test_statistic_of_dates_and_of_nothing(judge: Any) -> None:
    about = {"rule": "statistic", "column": "a", "statistic": "max"}
    days = {"a": [date(2024, 1, 1), date(2024, 2, 1)]}
    assert judge(days, max=date(2024, 2, 1), **about).passed
    assert not judge(days, max=date(2024, 1, 31), **about).passed
    assert "holds" in judge(days, max=5, **about).message
    empty = pl.DataFrame({"a": pl.Series([], dtype=pl.Int64)})
    assert "too few values" in judge(empty, max=1, **about).message


@pytest.mark.parametrize(
    ("newest", "passed"),
    [
        (datetime(2026, 1, 31, 1, tzinfo=UTC), True),
        (datetime(2026, 1, 29, 1, tzinfo=UTC), False),
        (datetime(2026, 1, 31, 12, 30, tzinfo=UTC), True),
        (datetime(2026, 1, 31, 14, tzinfo=UTC), False),
    ],
)
def test_freshness(judge: Any, newest: datetime, passed: bool) -> None:
    columns = {"at": [datetime(2020, 1, 1, tzinfo=UTC), newest, None]}
    result = judge(columns, rule="freshness", column="at", max_age="36h")
    assert result.passed is passed, result.message
    assert result.observed["newest"] == newest.isoformat()


def test_freshness_of_naive_moments_dates_and_text(judge: Any) -> None:
    about = {"rule": "freshness", "column": "at"}
    noon_in_tokyo = datetime(2026, 1, 31, 12)  # noqa: DTZ001
    zone = {"time_zone": "Asia/Tokyo"}
    assert judge({"at": [noon_in_tokyo]}, max_age="9h", **zone, **about).passed
    assert not judge({"at": [noon_in_tokyo]}, max_age="8h", **zone, **about).passed
    assert judge({"at": [date(2026, 1, 30)]}, max_age="12h", **about).passed
    assert not judge({"at": [date(2026, 1, 29)]}, max_age="12h", **about).passed
    for text in ("2026-01-31T11:00:00+00:00", "2026-01-31T11:00:00", "2026-01-31 11:00:00"):
        assert judge({"at": [text]}, max_age="2h", **about).passed, text
        assert not judge({"at": [text]}, max_age="30m", **about).passed, text
    for nothing in ([None], ["soon"]):
        frame = pl.DataFrame({"at": nothing}, schema={"at": pl.String})
        assert not judge(frame, max_age="1d", **about).passed


def test_row_in_the_far_future_does_not_keep_data_fresh(judge: Any) -> None:
    columns = {"at": [datetime(2026, 1, 31, 12, tzinfo=UTC) + timedelta(days=400)]}
    result = judge(columns, rule="freshness", column="at", max_age="1d")
    assert not result.passed
    assert "future" in result.message


def test_unknown_column_suggests_the_nearest(judge: Any) -> None:
    result = judge({"price": [1]}, rule="range", column="prize", min=0)
    assert result.message == "No column 'prize'; did you mean 'price'?"
    assert not judge({"a": [1]}, rule="nulls", column="a", where="b == 1").passed


def test_rows_that_a_condition_leaves_out_are_not_judged(judge: Any) -> None:
    columns = {"land": ["DE", "FR", "DE"], "code": ["12345", "x", "y"]}
    result = judge(columns, rule="pattern", column="code", regex=r"^\d+$", where="land == 'DE'")
    assert (result.checked, result.failing) == (2, 1)
    assert result.samples[0].row == 2
    assert result.name == "pattern(code)"


@pytest.mark.parametrize("name", ["*", "^a$", "", "a b", "row", "0", "check_output", "position"])
def test_odd_names_of_columns_are_taken_literally(judge: Any, name: str) -> None:
    columns = {name: [1, 2, 2], "a": ["x", "y", "z"]}
    assert not judge(columns, rule="range", column=name, max=1).passed
    result = judge(columns, rule="unique", columns=[name])
    assert [sample.row for sample in result.samples] == [1, 2]
    assert result.samples[0].values == {name: 2}
    assert judge(columns, rule="expression", expression=f"column({name!r}) < 3").passed


def test_lists_and_structs_can_be_unique(judge: Any) -> None:
    assert judge({"a": [[1], [2]]}, rule="unique", columns=["a"]).passed
    assert not judge({"a": [{"x": 1}, {"x": 1}]}, rule="unique", columns=["a"]).passed

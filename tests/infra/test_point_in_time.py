"""Point-in-time joins: never a value from the future, the latest of those that were known."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.errors import InvalidRequest, NotFound
from infra.feature_views import FeatureView
from infra.point_in_time import Index, Moments, count, moments_of

START = datetime(2026, 1, 1, tzinfo=UTC)
ROWS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 30)), max_size=25)
WHEN = ("2026-01-01T00:00:00Z", "2026-01-01T00:00:09Z", "2026-01-01T00:00:05+00:00")


def view(**changes: Any) -> FeatureView:
    asked = {"rows": "dataset/accounts", "key": "customer", "time": "at", "columns": ["balance"]}
    return FeatureView.model_validate({**asked, **changes})


def table(rows: list[tuple[Any, int]]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "customer": [key for key, _ in rows],
            "at": [START + timedelta(seconds=second) for _, second in rows],
            "balance": [float(place) for place in range(len(rows))],
        },
        schema_overrides={"at": pl.Datetime("us", "UTC")}
        | ({} if rows else {"customer": pl.String, "balance": pl.Float64}),
    )


def index(frame: pl.DataFrame, **changes: Any) -> Index:
    return Index(view(**changes), frame, source="dataset/accounts@v1")


def joined(made: Index, keys: list[Any], times: Any) -> list[float | None]:
    found = made.find(keys, moments_of(times, source="The rows"))
    return made.features(found)["balance"].to_list()


def naive(
    rows: list[tuple[Any, int]], asked: list[tuple[Any, int]], *, lag: int, ttl: int | None
) -> list[float | None]:
    found: list[float | None] = []
    for key, now in asked:
        known = [
            (second, float(place))
            for place, (mine, second) in enumerate(rows)
            if mine == key and second + lag <= now
        ]
        latest = max(known, default=None)
        is_old = latest is not None and ttl is not None and now - latest[0] > ttl
        found.append(None if latest is None or is_old else latest[1])
    return found


@settings(max_examples=25, deadline=None)
@given(rows=ROWS, asked=ROWS, lag=st.integers(0, 6), ttl=st.none() | st.integers(1, 20))
def test_each_row_gets_the_latest_value_that_was_known(
    rows: list[tuple[str, int]], asked: list[tuple[str, int]], lag: int, ttl: int | None
) -> None:
    rows = list(dict.fromkeys(rows))
    made = index(table(rows), lag_seconds=float(lag), ttl_seconds=ttl)
    keys = [key for key, _ in asked]
    times = [START + timedelta(seconds=second) for _, second in asked]
    found = joined(made, keys, times)
    assert found == naive(rows, asked, lag=lag, ttl=ttl)
    one_by_one = [joined(made, [key], [time])[0] for key, time in zip(keys, times, strict=True)]
    assert one_by_one == found


def test_the_join_is_that_of_polars() -> None:
    rows = [(key, second) for second in range(0, 40, 3) for key in "ab"]
    asked = pl.DataFrame(
        {
            "customer": ["a", "b", "c"] * 14,
            "at": [START + timedelta(seconds=second) for second in range(42)],
        }
    )
    known = table(rows).sort("at")
    wanted = asked.sort("at").join_asof(known, on="at", by="customer", check_sortedness=False)
    assert joined(index(known), asked["customer"].to_list(), asked["at"]) == (
        wanted["balance"].to_list()
    )


def test_why_a_row_has_no_value_is_told() -> None:
    made = index(table([("a", 10)]), ttl_seconds=5.0, lag_seconds=1.0)
    times = [START + timedelta(seconds=second) for second in (10, 11, 15, 16, 12)]
    found = made.find(["a", "a", "a", "a", "z"], moments_of(times, source="rows"))
    assert found.places == [None, 0, 0, None, None]
    assert found.missed == [(0, "too_early"), (3, "too_old"), (4, "unknown_key")]


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (table([("a", 1), ("a", 1), ("b", 1)]), "2 rows share key and time.*'a' at 2026-01-01T00"),
        (table([("a", 1)]).with_columns(at=pl.lit("soon")), "'soon' is no time"),
        (table([("a", 1)]).with_columns(at=pl.lit(3)), "3 is no time"),
        (table([("a", 1)]).with_columns(customer=pl.lit(1.5)), "'customer' holds Float64"),
        (table([("a", 1), (None, 2)]), "1 rows have no key in 'customer'"),
        (
            table([("a", 1)]).with_columns(at=pl.lit(None, pl.Datetime("us"))),
            "1 rows have no time in 'at'",
        ),
        (
            table([("a", 1), ("b", 1)]).with_columns(at=pl.Series([WHEN[0], WHEN[1][:-1]])),
            "'at': some times have a time zone, and some have none: that of row 1 is unlike",
        ),
        (
            table([("a", 1), ("b", 1)]).with_columns(
                customer=pl.Series([1, 2**63], dtype=pl.UInt64)
            ),
            "row 1: 'customer' is 9223372036854775808, which is no int64",
        ),
        (
            table([("a", 1), ("b", 1)]).with_columns(
                at=pl.Series([0, 2**62], dtype=pl.Int64).cast(pl.Datetime("ms"))
            ),
            "'at', row 1: 4,611,686,018,427,387,904 ms since 1970 are beyond",
        ),
    ],
)
def test_what_cannot_be_joined_is_refused(frame: pl.DataFrame, words: str) -> None:
    with pytest.raises(InvalidRequest, match=f"dataset/accounts@v1.*{words}"):
        index(frame)


def test_column_that_is_not_there_is_named() -> None:
    with pytest.raises(NotFound, match="column of dataset/accounts@v1 'balances'.*'balance'"):
        index(table([("a", 1)]), columns=["balances"])


@pytest.mark.parametrize(
    ("keys", "times", "words"),
    [
        ([7], [START], "'customer' is 7, and the keys of .* are string"),
        ([True], [START], "'customer' is True"),
        (["a"], [START.replace(tzinfo=None)], "those of the rows have none"),
        (["a"], [None], "Row 0 has no time"),
        (["a", math.nan], [START] * 2, "Row 1: 'customer' is nan"),
        (["a", ["x" * 999]], [START] * 2, r"Row 1: 'customer' is \['x{78}\.\.\., and the keys"),
        (["a", "a"], [START, math.nan], "The rows, row 1: nan is no time"),
        (["a", "a"], [START, "y" * 999], r"The rows, row 1: 'y{79}\.\.\. is no time"),
        (["a"], ["2026-01-01T00:00:00+00:00:00.0000009"], "row 0: .* is no time"),
        (
            ["a"],
            pl.Series([2**30], dtype=pl.Int32).cast(pl.Date),
            "row 0: 1,073,741,824 days since",
        ),
    ],
)
def test_rows_of_other_types_are_refused(keys: list[Any], times: Any, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        joined(index(table([("a", 1)])), keys, times)


def test_a_key_beyond_whole_numbers_is_refused() -> None:
    made = index(table([(7, 1)]))
    assert joined(made, [7, -(2**63)], [START + timedelta(seconds=1)] * 2) == [0.0, None]
    with pytest.raises(InvalidRequest, match="Row 1: 'customer' is 9223372036854775808, which is"):
        joined(made, [7, 2**63], [START] * 2)


def test_times_mean_the_same_however_they_are_written() -> None:
    moment = datetime(2026, 1, 31, 9, tzinfo=UTC)
    wanted = Moments([count(moment)], is_zoned=True)
    east = "2026-01-31T12:00:00+03:00"
    given = [[moment], [east], ["2026-01-31T09:00:00Z"]]
    given += [pl.Series([moment], dtype=pl.Datetime(unit, "UTC")) for unit in ("ms", "us", "ns")]
    assert [moments_of(each, source="rows") for each in given] == [wanted] * 6
    midnight = Moments([count(datetime(2026, 1, 31))], is_zoned=False)  # noqa: DTZ001
    day = date(2026, 1, 31)
    assert moments_of([day], source="rows") == midnight
    assert moments_of(pl.Series([day]), source="rows") == midnight
    assert moments_of(["0001-01-01T00:00:00+05:00", ""], source="rows").microseconds[1] is None


def test_a_part_of_a_microsecond_never_shows_the_future() -> None:
    nanoseconds = pl.Series([1_500], dtype=pl.Int64).cast(pl.Datetime("ns"))
    assert moments_of(nanoseconds, source="rows").microseconds == [1]
    assert moments_of(nanoseconds, source="rows", is_ceiling=True).microseconds == [2]
    texts = ["1970-01-01T00:00:00.0000015", "1970-01-01T00:00:00,00000200"]
    assert moments_of(texts, source="rows").microseconds == [1, 2]
    assert moments_of(texts, source="rows", is_ceiling=True).microseconds == [2, 2]


def test_a_value_whose_moment_is_a_text_is_not_known_before_it() -> None:
    times = ["2026-01-01T00:00:00.0000019Z", "2025-12-31T00:00:00Z"]
    made = index(table([("a", 1), ("a", 2)]).with_columns(at=pl.Series(times)))
    asked = ["2026-01-01T00:00:00.0000018Z", "2026-01-01T00:00:00.000001Z"]
    later = ["2026-01-01T00:00:00.000002Z"]
    assert joined(made, ["a"] * 3, asked + later) == [1.0, 1.0, 0.0]

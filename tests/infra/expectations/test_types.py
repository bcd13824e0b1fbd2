"""Every rule on every type of column: a verdict, never an exception, and a report that is JSON."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import polars as pl
import pytest

from infra.expectations import check, suggest
from infra.expectations.suite import RULES, build_suite
from infra.expectations.types import EXACT, FAMILIES, check_type, family, is_of

NOW = datetime(2026, 1, 31, tzinfo=UTC)


def numbered(values: list[Any], dtype: Any, kind: Any) -> pl.Series:
    return pl.Series(values, dtype=kind).cast(dtype)


SERIES = {
    "integers": pl.Series([1, None, 2**62, 1]),
    "large integers": pl.Series([2**64 - 1, 0], dtype=pl.UInt64),
    "larger integers": pl.Series([2**100, 1], dtype=pl.Int128),
    "floats": pl.Series([1.0, float("nan"), float("inf"), None, -float("inf")]),
    "texts": pl.Series(["a", None, "", "x" * 50, "a\x00b", "ada@example.org"]),
    "flags": pl.Series([True, None]),
    "days far away": numbered([0, 2**31 - 1, -(2**31), None], pl.Date, pl.Int32),
    "days": pl.Series([date(1, 1, 1), date(9999, 12, 31)]),
    "moments far away": numbered([0, 2**63 - 1, None], pl.Datetime("us"), pl.Int64),
    "fine moments": numbered([0, 2**63 - 1], pl.Datetime("ns"), pl.Int64),
    "moments there": numbered([0, 2**50], pl.Datetime("ms", "America/New_York"), pl.Int64),
    "times": pl.Series([time(1), None]),
    "spans": pl.Series([timedelta(1), None, timedelta(1)]),
    "decimals": pl.Series([Decimal("1.5"), None]),
    "bytes": pl.Series([b"a", None, b"a"]),
    "lists": pl.Series([[1], None, [1]]),
    "lists of texts": pl.Series([["a"], ["a"]]),
    "structs": pl.Series([{"a": 1, "b": "x"}, None]),
    "messages": pl.Series([[{"role": "user", "content": "x"}], [], None]),
    "nulls": pl.Series([None, None]),
    "categories": pl.Series(["a", "b", "a"], dtype=pl.Categorical),
    "enumerated": pl.Series(["a"], dtype=pl.Enum(["a", "b"])),
    "arrays": pl.Series([[1, 2]], dtype=pl.Array(pl.Int64, 2)),
    "no rows": pl.Series([], dtype=pl.Int64),
}
A: dict[str, Any] = {"column": "a"}
CHECKS: list[dict[str, Any]] = [
    {"rule": "columns", "columns": {"a": "integer"}},
    {"rule": "rows", "min": 1},
    {"rule": "nulls", "expect": "all", **A},
    {"rule": "unique", "columns": ["a"]},
    *({"rule": "range", "min": low, **A} for low in (0, 1e300, date(2024, 1, 1), NOW)),
    {"rule": "range", "max": datetime(2024, 1, 1), "exclusive": "both", **A},  # noqa: DTZ001
    *({"rule": "categories", "values": [v], **A} for v in (1, 1.5, "a", True, date(2024, 1, 1))),
    {"rule": "categories", "values": [NOW], **A},
    {"rule": "categories", "values": ["a"], "complete": True, "expect": "unlisted", **A},
    {"rule": "pattern", "regex": "a", **A},
    *({"rule": "statistic", "statistic": of, "min": 0, **A} for of in ("max", "std", "distinct")),
    {"rule": "statistic", "statistic": "median", "max": date(2024, 1, 1), **A},
    {"rule": "freshness", "max_age": "1d", "time_zone": "Asia/Tokyo", **A},
    *(
        {"rule": "expression", "expression": text}
        for text in ("a > 1", "a == 'x'", "a in [1, 'x']", "length(a) > 1", "year(a) > 1", "not a",
                     "a // 0 == 1", "a * 9223372036854775807 > 1", "a < date('2024-01-01')")
    ),
    {"rule": "nulls", "where": "a and a", **A},
    {"rule": "length", "min": 1, "max": 2**62, **A},
    {"rule": "length", "unit": "words", "max": 2, **A},
    {"rule": "duplicates", "similarity": 0.5, **A},
    {"rule": "pii", "columns": ["a"]},
    {"rule": "language", "languages": ["en"], **A},
    {"rule": "chat", **A},
]  # fmt: skip


@pytest.mark.parametrize("name", SERIES)
def test_every_rule_has_a_verdict_on_every_type(name: str) -> None:
    assert {item["rule"] for item in CHECKS} == set(RULES)
    suite = build_suite({"name": "all", "checks": CHECKS})
    report = check(suite, pl.DataFrame({"a": SERIES[name]}), now=NOW)
    assert len(report.results) == len(CHECKS)
    assert all(result.message for result in report.results)
    text = json.dumps(report.as_dict(), allow_nan=False)
    assert "ada@" not in text


@pytest.mark.parametrize("name", SERIES)
def test_every_type_has_a_suggestion_that_passes(name: str) -> None:
    frame = pl.DataFrame({"a": SERIES[name]})
    report = check(suggest(frame), frame, now=NOW)
    assert [result for result in report.results if not result.passed] == []


def test_every_type_is_of_the_family_that_is_suggested() -> None:
    for values in SERIES.values():
        name = family(values.dtype)
        assert name is not None
        assert check_type(name) == name
        assert is_of(values.dtype, name)
        assert is_of(values.dtype, str(values.dtype.base_type()))
        assert str(values.dtype.base_type()) in EXACT
    assert {member for members in FAMILIES.values() for member in members} == EXACT

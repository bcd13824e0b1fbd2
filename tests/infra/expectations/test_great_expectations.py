"""Suites of Great Expectations, written by hand in both forms: what is mapped, what is named."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from infra.errors import InvalidRequest
from infra.expectations import check, parse_suite, read_suite
from infra.expectations.great_expectations import EXPECTATIONS, is_suite, translate

NOW = datetime(2026, 1, 31, tzinfo=UTC)
FRAME = pl.DataFrame(
    {
        "id": [1, 2, 3],
        "low": [1.0, 2.0, None],
        "high": [2.0, 2.0, None],
        "land": ["DE", "FR", "DE"],
        "code": ["A1", "B2", "C3"],
        "none": [None, None, None],
    }
)
# Type, arguments that FRAME passes, arguments that it fails.
CASES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("expect_table_row_count_to_be_between", {"min_value": 1, "max_value": 3}, {"max_value": 2}),
    ("expect_table_row_count_to_equal", {"value": 3}, {"value": 4}),
    (
        "expect_table_columns_to_match_ordered_list",
        {"column_list": ["id", "low", "high", "land", "code", "none"]},
        {"column_list": ["low", "id", "high", "land", "code", "none"]},
    ),
    (
        "expect_table_columns_to_match_set",
        {"column_set": ["land", "id"], "exact_match": False},
        {"column_set": ["land", "id"]},
    ),
    ("expect_column_to_exist", {"column": "id"}, {"column": "ids"}),
    (
        "expect_column_values_to_be_of_type",
        {"column": "id", "type_": "int64"},
        {"column": "id", "type_": "str"},
    ),
    (
        "expect_column_values_to_be_in_type_list",
        {"column": "low", "type_list": ["FLOAT", "DOUBLE"]},
        {"column": "land", "type_list": ["INTEGER", "BIGINT"]},
    ),
    ("expect_column_values_to_not_be_null", {"column": "low", "mostly": 0.6}, {"column": "low"}),
    ("expect_column_values_to_be_null", {"column": "none"}, {"column": "low"}),
    ("expect_column_values_to_be_unique", {"column": "id"}, {"column": "land"}),
    (
        "expect_compound_columns_to_be_unique",
        {"column_list": ["land", "code"]},
        {"column_list": ["none", "land"]},
    ),
    (
        "expect_column_values_to_be_between",
        {"column": "id", "min_value": 1, "max_value": 3},
        {"column": "id", "min_value": 1, "strict_min": True},
    ),
    (
        "expect_column_values_to_be_in_set",
        {"column": "land", "value_set": ["DE"], "mostly": 0.6},
        {"column": "land", "value_set": ["DE"], "mostly": 0.7},
    ),
    (
        "expect_column_values_to_not_be_in_set",
        {"column": "land", "value_set": ["UK"]},
        {"column": "land", "value_set": ["FR"]},
    ),
    (
        "expect_column_distinct_values_to_be_in_set",
        {"column": "land", "value_set": ["DE", "FR", "UK"]},
        {"column": "land", "value_set": ["DE"]},
    ),
    (
        "expect_column_distinct_values_to_equal_set",
        {"column": "land", "value_set": ["DE", "FR"]},
        {"column": "land", "value_set": ["DE", "FR", "UK"]},
    ),
    (
        "expect_column_values_to_match_regex",
        {"column": "code", "regex": r"\d"},
        {"column": "code", "regex": "^A"},
    ),
    (
        "expect_column_values_to_not_match_regex",
        {"column": "code", "regex": "x"},
        {"column": "code", "regex": "3"},
    ),
    (
        "expect_column_values_to_match_regex_list",
        {"column": "code", "regex_list": ["A", "B|C"]},
        {"column": "code", "regex_list": ["A", r"\d"], "match_on": "all"},
    ),
    (
        "expect_column_values_to_not_match_regex_list",
        {"column": "code", "regex_list": ["x", "y"]},
        {"column": "code", "regex_list": ["x", "A"]},
    ),
    (
        "expect_column_value_lengths_to_be_between",
        {"column": "code", "min_value": 1},
        {"column": "code", "max_value": 1},
    ),
    (
        "expect_column_value_lengths_to_equal",
        {"column": "code", "value": 2},
        {"column": "code", "value": 3},
    ),
    (
        "expect_column_min_to_be_between",
        {"column": "id", "min_value": 1},
        {"column": "id", "min_value": 2},
    ),
    (
        "expect_column_max_to_be_between",
        {"column": "id", "max_value": 3},
        {"column": "id", "max_value": 2},
    ),
    (
        "expect_column_mean_to_be_between",
        {"column": "id", "min_value": 2, "max_value": 2},
        {"column": "id", "min_value": 3},
    ),
    (
        "expect_column_median_to_be_between",
        {"column": "id", "min_value": 2},
        {"column": "id", "max_value": 1},
    ),
    (
        "expect_column_stdev_to_be_between",
        {"column": "id", "min_value": 1, "max_value": 1},
        {"column": "id", "max_value": 0.5},
    ),
    (
        "expect_column_sum_to_be_between",
        {"column": "id", "min_value": 6},
        {"column": "id", "max_value": 5},
    ),
    (
        "expect_column_unique_value_count_to_be_between",
        {"column": "land", "max_value": 2},
        {"column": "land", "max_value": 1},
    ),
    (
        "expect_column_proportion_of_unique_values_to_be_between",
        {"column": "land", "max_value": 0.7},
        {"column": "land", "min_value": 0.7},
    ),
    (
        "expect_column_pair_values_a_to_be_greater_than_b",
        {"column_A": "high", "column_B": "low", "or_equal": True},
        {"column_A": "high", "column_B": "low"},
    ),
    (
        "expect_column_pair_values_to_be_equal",
        {"column_A": "land", "column_B": "land"},
        {"column_A": "land", "column_B": "code"},
    ),
    (
        "expect_multicolumn_sum_to_equal",
        {"column_list": ["low"], "sum_total": 3, "ignore_row_if": "all_values_are_missing",
         "row_condition": "low == 3"},
        {"column_list": ["low", "high"], "sum_total": 3},
    ),
]  # fmt: skip


def old(kind: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return {
        "expectation_suite_name": "warehouse.people.v1",
        "expectations": [{"expectation_type": kind, "kwargs": arguments, "meta": {}}],
        "meta": {"great_expectations_version": "0.18.0"},
    }


def new(kind: str, arguments: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "name": "people",
        "id": None,
        "expectations": [{"type": kind, "kwargs": arguments, "id": "x", "meta": {}, **more}],
        "meta": {"great_expectations_version": "1.3.0"},
    }


@pytest.mark.parametrize("form", [old, new])
@pytest.mark.parametrize(("kind", "good", "bad"), CASES, ids=[case[0] for case in CASES])
def test_each_expectation_passes_and_fails(form: Any, kind: str, good: Any, bad: Any) -> None:
    assert check(translate(form(kind, good)), FRAME, now=NOW).passed
    assert not check(translate(form(kind, bad)), FRAME, now=NOW).passed


def test_every_expectation_that_is_mapped_has_a_case() -> None:
    assert {case[0] for case in CASES} == set(EXPECTATIONS)
    assert len(EXPECTATIONS) == 33


def test_rows_where_one_of_a_pair_is_missing_fail_as_they_do_there() -> None:
    frame = pl.DataFrame({"a": [2, None, 5], "b": [1, None, None]})
    kind = "expect_column_pair_values_A_to_be_greater_than_B"
    pair = {"column_A": "a", "column_B": "b"}
    report = check(translate(old(kind, pair)), frame, now=NOW)
    assert (report.results[0].checked, report.results[0].failing) == (3, 1)
    lenient = {**pair, "ignore_row_if": "either_value_is_missing"}
    assert check(translate(old(kind, lenient)), frame, now=NOW).passed


def test_missing_summand_counts_as_nothing() -> None:
    frame = pl.DataFrame({"a": [1, 3, None], "b": [2, None, None]})
    total = {"column_list": ["a", "b"], "sum_total": 3}
    assert check(translate(new("expect_multicolumn_sum_to_equal", total)), frame, now=NOW).passed


@pytest.mark.parametrize(
    ("kind", "arguments", "reason"),
    [
        ("expect_column_kl_divergence_to_be_less_than", {"column": "a"}, "no such check here"),
        ("expect_column_values_to_be_increasing", {"column": "a"}, "no such check here"),
        (
            "expect_column_values_to_be_between",
            {"column": "a", "min_value": 1, "parse_strings_as_datetimes": True},
            "arguments ['parse_strings_as_datetimes'] have no counterpart",
        ),
        (
            "expect_column_values_to_be_between",
            {"column": "a", "min_value": {"$PARAMETER": "low"}},
            "min",
        ),
        ("expect_column_values_to_match_regex", {"column": "a", "regex": "(?=a)"}, "look-around"),
        (
            "expect_column_values_to_be_of_type",
            {"column": "a", "type_": "object"},
            "no counterpart",
        ),
        ("expect_column_values_to_be_unique", {}, "KeyError"),
        ("expect_column_values_to_be_in_set", {"column": "a", "value_set": None}, "KeyError"),
        (
            "expect_column_values_to_be_unique",
            {"column": "a", "row_condition": "a.str.len() > 1", "condition_parser": "pandas"},
            "row condition",
        ),
        (
            "expect_column_values_to_be_unique",
            {"column": "a", "row_condition": "x", "condition_parser": "spark"},
            "another language",
        ),
        (
            "expect_column_mean_to_be_between",
            {"column": "a", "min_value": 1, "strict_min": True},
            "strict bounds",
        ),
        (
            "expect_compound_columns_to_be_unique",
            {"column_list": ["a"], "ignore_row_if": "never"},
            "always passed over",
        ),
    ],
)
def test_what_has_no_counterpart_is_named_and_kept_as_a_warning(
    kind: str, arguments: Any, reason: str
) -> None:
    content = new("expect_table_row_count_to_be_between", {"min_value": 1})
    content["expectations"].append({"type": kind, "kwargs": arguments})
    suite = translate(content)
    assert len(suite.checks) == 1
    assert suite.untranslated[0].startswith(f"expectation 2 ({kind}): ")
    assert reason in suite.untranslated[0]
    report = check(suite, FRAME, now=NOW)
    assert report.passed
    assert len(report.warnings) == 1
    assert parse_suite(suite.to_yaml()) == suite


def test_conditions_and_severities_are_kept() -> None:
    arguments = {
        "column": "low",
        "row_condition": 'col("land") == "DE" and col("id").notNull()',
        "condition_parser": "great_expectations",
    }
    suite = translate(new("expect_column_values_to_not_be_null", arguments, severity="warning"))
    assert suite.checks[0].severity == "warning"
    assert suite.checks[0].where == 'column("land") == "DE" and column("id") is not None'
    result = check(suite, FRAME, now=NOW).results[0]
    assert (result.checked, result.failing) == (2, 1)
    assert (
        translate(old("expect_column_to_exist", {"column": "a"})).checks[0].severity == "required"
    )


def test_name_becomes_one_of_ours() -> None:
    assert translate(old("expect_column_to_exist", {"column": "a"})).name == "warehouse.people.v1"
    content = {**new("expect_column_to_exist", {"column": "a"}), "name": " nightly / people ü "}
    assert translate(content).name == "nightly-people"


@pytest.mark.parametrize(
    "content",
    [
        {"expectations": []},
        {"expectations": [1, {}, {"type": 5}, {"type": "expect_nothing"}]},
        {"expectations": [{"type": "expect_column_to_exist", "kwargs": [1]}]},
    ],
)
def test_suite_without_anything_to_check_is_refused(content: Any) -> None:
    with pytest.raises(InvalidRequest, match="nothing that can be checked"):
        translate(content)


def test_only_json_with_expectations_is_taken_for_one(tmp_path: Path) -> None:
    assert not is_suite({"name": "x", "checks": []})
    assert not is_suite([1])
    path = tmp_path / "people.json"
    path.write_text(json.dumps(old("expect_column_to_exist", {"column": "id"})), encoding="utf-8")
    assert read_suite(path).checks[0].rule == "columns"

"""Whole suites on whole tables: verdicts, severities, samples, batches, real data."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.errors import InvalidRequest
from infra.expectations import Report, check, parse_suite
from infra.expectations.files import open_table
from infra.expectations.suite import build_suite

NOW = datetime(2026, 1, 31, tzinfo=UTC)
PEOPLE = pl.DataFrame(
    {"id": [1, 2, 3, 4], "age": [30, -1, 200, None], "land": ["DE", "FR", "XX", "DE"]}
)
SUITE = """
name: people
key: [id]
checks:
  - {rule: range, column: age, min: 0, max: 120}
  - {rule: categories, column: land, values: [DE, FR], severity: warning}
  - {rule: unique, columns: [id], name: one row each}
"""


def test_required_failures_decide_and_warnings_do_not() -> None:
    report = check(parse_suite(SUITE), PEOPLE, now=NOW)
    assert not report.passed
    assert [result.name for result in report.failures] == ["range(age)"]
    assert [result.name for result in report.warnings] == ["categories(land)"]
    assert (report.rows, report.columns, report.checked_at) == (4, 3, NOW)
    assert report.suite_digest == parse_suite(SUITE).digest
    sound = PEOPLE.with_columns(age=pl.lit(30))
    later = check(parse_suite(SUITE), sound, now=NOW)
    assert later.passed
    assert len(later.warnings) == 1


def test_failing_rows_are_shown_with_the_key_and_bounded() -> None:
    report = check(parse_suite(SUITE), PEOPLE, now=NOW)
    assert [sample.values for sample in report.results[0].samples] == [
        {"id": 2, "age": -1},
        {"id": 3, "age": 200},
    ]
    frame = pl.DataFrame(
        {"id": range(10_000), "age": [-1] * 10_000, "land": ["x" * 5_000] * 10_000}
    )
    for samples in (0, 3):
        report = check(parse_suite(SUITE), frame, now=NOW, samples=samples)
        assert [len(result.samples) for result in report.results] == [samples, samples, 0]
        assert report.results[0].failing == 10_000
    assert len(json.dumps(report.as_dict())) < 5_000


def test_report_survives_being_json() -> None:
    report = check(parse_suite(SUITE), PEOPLE, now=NOW)
    assert Report.from_dict(json.loads(json.dumps(report.as_dict()))) == report


def test_lazy_frames_and_batches_give_the_same_report() -> None:
    suite = parse_suite(SUITE)
    whole = check(suite, PEOPLE, now=NOW)
    assert check(suite, PEOPLE.lazy(), now=NOW) == whole
    assert check(suite, (PEOPLE[start : start + 1] for start in range(4)), now=NOW) == whole


def test_key_that_repeats_in_another_batch_is_found() -> None:
    batches = [PEOPLE, PEOPLE[:1]]
    assert check(parse_suite(SUITE), batches, now=NOW).results[2].failing == 2


def test_batches_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="not of one table"):
        check(parse_suite(SUITE), [PEOPLE, pl.DataFrame({"other": [1]})], now=NOW)
    with pytest.raises(InvalidRequest, match="no batch"):
        check(parse_suite(SUITE), [], now=NOW)


def test_clock_without_zone_and_too_many_samples_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="without a time zone"):
        check(parse_suite(SUITE), PEOPLE, now=datetime(2026, 1, 1))  # noqa: DTZ001
    with pytest.raises(InvalidRequest, match="from 0 to 100"):
        check(parse_suite(SUITE), PEOPLE, now=NOW, samples=101)


def test_rule_that_cannot_be_evaluated_fails_and_the_others_go_on() -> None:
    checks = [
        {"rule": "range", "column": "agee", "min": 0},
        {"rule": "pattern", "column": "age", "regex": "x"},
        {"rule": "expression", "expression": "land > age"},
        {"rule": "rows", "min": 4},
    ]
    report = check(build_suite({"name": "x", "checks": checks}), PEOPLE, now=NOW)
    assert [result.passed for result in report.results] == [False, False, False, True]
    assert report.results[0].message == "No column 'agee'; did you mean 'age'?"
    assert report.results[1].message == "column 'age' holds Int64; text is needed"


def test_table_without_rows_passes_what_speaks_of_rows() -> None:
    report = check(parse_suite(SUITE), PEOPLE.clear(), now=NOW)
    assert report.passed
    assert [result.checked for result in report.results] == [0, 0, 0]
    empty = build_suite({"name": "x", "checks": [{"rule": "rows", "max": 0}]})
    assert check(empty, pl.DataFrame(), now=NOW).passed


def test_untranslated_expectation_is_a_warning() -> None:
    suite = build_suite(
        {
            "name": "x",
            "checks": [{"rule": "rows", "min": 1}],
            "untranslated": ["expectation 2: odd"],
        }
    )
    report = check(suite, PEOPLE, now=NOW)
    assert report.passed
    assert [result.name for result in report.warnings] == ["expectation 2: odd"]


CELLS = {
    pl.Int64: st.none() | st.integers(-5, 5),
    pl.Float64: st.none() | st.floats(-5, 5) | st.just(float("nan")),
    pl.String: st.none() | st.sampled_from(["a", "b", "ab", ""]),
    pl.Boolean: st.none() | st.booleans(),
}
RULES_OF_A = st.sampled_from(
    [
        {"rule": "nulls", "column": "a"},
        {"rule": "unique", "columns": ["a"]},
        {"rule": "range", "column": "a", "min": -1, "max": 2},
        {"rule": "categories", "column": "a", "values": [1, 2]},
        {"rule": "categories", "column": "a", "values": ["a"]},
        {"rule": "pattern", "column": "a", "regex": "a"},
        {"rule": "length", "column": "a", "max": 1},
        {"rule": "duplicates", "column": "a"},
        {"rule": "expression", "expression": "a == 1 or is_missing(a)"},
        {"rule": "statistic", "column": "a", "statistic": "distinct", "max": 3},
    ]
)


@given(st.data())
@settings(max_examples=120, deadline=None)
def test_counts_add_up_and_rows_that_pass_pass_alone(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(list(CELLS)))
    values = data.draw(st.lists(CELLS[kind], max_size=8))
    rule = data.draw(RULES_OF_A)
    frame = pl.DataFrame({"a": pl.Series(values, dtype=kind)})
    suite = build_suite({"name": "x", "checks": [rule]})
    result = check(suite, frame, now=NOW, samples=100).results[0]
    if result.checked is None:
        return
    assert result.failing is not None
    assert 0 <= result.failing <= result.checked <= len(values)
    assert result.passed is (result.failing == 0)
    failing = [sample.row for sample in result.samples]
    assert len(failing) == result.failing
    kept = frame.with_row_index("n").filter(~pl.col("n").is_in(failing)).drop("n")
    assert check(suite, kept, now=NOW).passed


def test_real_table_passes_its_suite_and_a_broken_copy_does_not(shared_data: Path) -> None:
    frame = open_table(shared_data / "tabular" / "titanic" / "titanic.csv.gz")
    suite = parse_suite("""
name: titanic
checks:
  - {rule: rows, min: 891, max: 891}
  - {rule: columns, columns: {survived: integer, age: float, deck: string, alone: boolean}}
  - {rule: nulls, column: fare}
  - {rule: nulls, column: deck, max_failing_share: 0.8}
  - {rule: range, column: age, min: 0, max: 80}
  - {rule: categories, column: sex, values: [male, female], complete: true}
  - {rule: expression, expression: "alone == (sibsp + parch == 0)"}
  - {rule: expression, expression: "alive == ('yes' if survived == 1 else 'no')"}
  - {rule: statistic, column: age, statistic: mean, min: 29, max: 30.5}
""")
    report = check(suite, frame, now=NOW)
    assert report.passed, report.failures
    assert report.results[3].failing == 688
    assert report.results[4].checked == 714
    broken = frame.with_columns(alone=~pl.col("alone"), sex=pl.col("sex").str.to_uppercase())
    failed = {result.name for result in check(suite, broken, now=NOW).failures}
    assert failed == {"categories(sex)", "expression(alone, parch, sibsp)"}


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet", "arrow", "csv.gz"])
def test_tables_are_read_from_files(tmp_path: Path, ending: str) -> None:
    frame = pl.DataFrame({"id": [1, 2], "day": ["2024-01-31", None]})
    path = tmp_path / f"table.{ending}"
    write: dict[str, Any] = {
        "csv": frame.write_csv,
        "tsv": lambda file: frame.write_csv(file, separator="\t"),
        "jsonl": frame.write_ndjson,
        "parquet": frame.write_parquet,
        "arrow": frame.write_ipc,
        "csv.gz": lambda file: frame.lazy().sink_csv(file, compression="gzip"),
    }
    write[ending](path)
    assert open_table(path).collect()["id"].to_list() == [1, 2]


def test_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="no table by its name"):
        open_table(tmp_path / "x.docx")
    with pytest.raises(FileNotFoundError):
        open_table(tmp_path / "x.parquet")
    (tmp_path / "x.parquet").write_bytes(b"ada@example.org")
    with pytest.raises(InvalidRequest, match="cannot be read as a table") as caught:
        open_table(tmp_path / "x.parquet")
    assert "ada@" not in caught.value.message

"""`ragstone expectations`: run, suggest, validate, convert, schema, show, and their exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from infra.errors import Conflict
from infra.expectations import parse_suite, require_checked
from infra.settings import load_settings
from service.cli.entry import app
from service.wiring import Components

pytestmark = pytest.mark.usefixtures("migrated_here")

SUITE = """
name: people
checks:
  - {rule: unique, columns: [id]}
  - {rule: range, column: age, min: 0, max: 120}
  - {rule: pii, columns: [note], severity: warning}
"""
GOOD = "id,age,note\n1,30,fine\n2,41,write to ada@example.org\n"
BAD = "id,age,note\n1,30,fine\n1,-4,fine\n"


@pytest.fixture(autouse=True)
def _files() -> None:
    Path("suite.yaml").write_text(SUITE, encoding="utf-8")
    Path("good.csv").write_text(GOOD, encoding="utf-8")
    Path("bad.csv").write_text(BAD, encoding="utf-8")


def run(*words: str, code: int = 0) -> Any:
    result = CliRunner().invoke(app, ["expectations", *words])
    assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
    return result


def run_json(*words: str, code: int = 0) -> Any:
    return json.loads(run(*words, "--json", code=code).stdout)


def put(path: str) -> str:
    result = CliRunner().invoke(app, ["datasets", "put", path, "people", "--json"])
    assert result.exit_code == 0, (result.stdout, result.stderr, result.exception)
    parts = Components(load_settings())
    try:
        return str(parts.artifacts.find("dataset/people"))
    finally:
        parts.close()


def test_file_that_passes_exits_with_0_and_shows_warnings_masked() -> None:
    result = run("run", "suite.yaml", "good.csv")
    assert "people on 2 rows: 2 passed, 0 failed, 1 warned" in result.stdout
    assert "write to <email>" in result.stdout
    assert "ada@" not in result.stdout


def test_file_that_fails_exits_with_1_and_shows_the_rows() -> None:
    result = run("run", "suite.yaml", "bad.csv", code=1)
    assert "range(age), row 1: age=-4" in result.stdout
    assert "fail" in result.stdout
    report = run_json("run", "suite.yaml", "bad.csv", code=1)
    assert (report["passed"], report["recorded"], report["digest"]) == (False, False, None)
    assert [item["failing"] for item in report["results"]] == [2, 1, 0]
    bare = run_json("run", "suite.yaml", "bad.csv", "--samples", "0", code=1)
    assert all(item["samples"] == [] for item in bare["results"])


def test_result_of_a_dataset_is_recorded_and_asked_for() -> None:
    reference = put("bad.csv")
    assert "never checked" in run("show", "dataset/people").stderr
    run("run", "suite.yaml", reference, "--dry-run", code=1)
    assert run_json("show", "people") == []
    assert run_json("run", "suite.yaml", "people", code=1)["recorded"] is True
    shown = run_json("show", reference)
    assert [(item["suite"], item["passed"]) for item in shown] == [("people", False)]
    assert "2 of 2 rows fail" in run("show", reference, "--suite", "people").stdout
    parts = Components(load_settings())
    try:
        with pytest.raises(Conflict, match="fails 2 required"):
            require_checked(parts.database, parts.artifacts.find(reference))
    finally:
        parts.close()
    newer = put("good.csv")
    assert newer != reference
    assert run_json("show", newer) == []
    assert run_json("run", "suite.yaml", newer)["recorded"] is True
    parts = Components(load_settings())
    try:
        assert require_checked(parts.database, parts.artifacts.find(newer))[0].passed
    finally:
        parts.close()


def test_one_split_is_checked_and_not_recorded() -> None:
    Path("people").mkdir()
    Path("people/train.csv").write_text(GOOD, encoding="utf-8")
    Path("people/test.csv").write_text(BAD, encoding="utf-8")
    put("people")
    assert run_json("run", "suite.yaml", "people@v1", "--split", "train")["recorded"] is False
    run("run", "suite.yaml", "people@v1", "--split", "test", code=1)
    assert run_json("show", "people") == []


def test_suggestion_is_a_suite_that_passes() -> None:
    reference = put("good.csv")
    for words in (["good.csv"], [reference], [reference, "--from-profile"]):
        text = run("suggest", *words, "--name", "mine").stdout
        assert parse_suite(text).name == "mine"
        Path("suggested.yaml").write_text(text, encoding="utf-8")
        run("run", "suggested.yaml", "good.csv")
    assert run_json("suggest", "good.csv")["checks"][0]["rule"] == "columns"
    run("suggest", "good.csv", "-o", "new.yaml")
    assert parse_suite(Path("new.yaml").read_text(encoding="utf-8"))
    assert "new.yaml" in run("suggest", "good.csv", "-o", "new.yaml", code=1).stderr


def test_suite_is_validated() -> None:
    assert "people: 3 checks, sha256:" in run("validate", "suite.yaml").stdout
    assert run_json("validate", "suite.yaml")["checks"] == 3
    Path("suite.yaml").write_text(SUITE.replace("min:", "mni:"), encoding="utf-8")
    result = run("validate", "suite.yaml", code=1)
    assert result.stderr.count("\n") == 1
    assert "check 2 (range): unknown key 'mni'; did you mean 'min'?" in result.stderr


def test_suite_of_great_expectations_is_run_and_converted() -> None:
    suite = {
        "name": "theirs",
        "expectations": [
            {"type": "expect_column_values_to_be_unique", "kwargs": {"column": "id"}},
            {"type": "expect_column_values_to_be_increasing", "kwargs": {"column": "id"}},
        ],
    }
    Path("theirs.json").write_text(json.dumps(suite), encoding="utf-8")
    result = run("run", "theirs.json", "good.csv")
    assert "not checked: expectation 2 (expect_column_values_to_be_increasing)" in result.stderr
    assert "1 passed, 0 failed, 1 warned" in result.stdout
    run("run", "theirs.json", "bad.csv", code=1)
    converted = run("convert", "theirs.json")
    assert "expectation 2" in converted.stderr
    assert parse_suite(converted.stdout).untranslated


def test_json_schema_is_printed() -> None:
    assert json.loads(run("schema").stdout)["title"] == "Suite"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["run", "none.yaml", "good.csv"], "none.yaml"),
        (["run", "suite.yaml", "none.csv"], "No file 'none.csv', and no dataset"),
        (["run", "suite.yaml", "dataset/none"], "no dataset: No"),
        (["run", "suite.yaml", "suite.yaml"], "no table by its name"),
        (["show", "dataset/none"], "No"),
    ],
)
def test_what_is_not_there_is_one_line(words: list[str], reason: str) -> None:
    result = run(*words, code=1)
    assert reason in result.stderr
    assert result.stderr.count("\n") == 1

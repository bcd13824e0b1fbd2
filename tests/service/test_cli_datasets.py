"""`ragstone datasets` in the terminal: put, list, show, diff and head, for people and as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from service.cli.entry import app

pytestmark = pytest.mark.usefixtures("migrated_here")


def run(*words: object, code: int = 0) -> Any:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
    return result


def run_json(*words: object) -> Any:
    return json.loads(run(*words, "--json").stdout)


@pytest.fixture
def people(tmp_path: Path) -> Path:
    path = tmp_path / "people.csv"
    path.write_text("id,name,age\n1,Ann,30\n2,Bob,\n3,Cleo,50\n")
    return path


@pytest.fixture
def changed(tmp_path: Path) -> Path:
    path = tmp_path / "changed.csv"
    path.write_text("id,name,age,town\n1,Ann,31,Ulm\n3,Cleo,50,Bonn\n4,Dan,20,Trier\n")
    return path


def test_dataset_is_put_listed_and_shown(people: Path) -> None:
    stored = run_json("datasets", "put", people, "people", "--tag", "production")
    assert stored["reference"] == "dataset/people@v1"
    assert (stored["rows"], stored["columns"], stored["format"]) == (3, 3, "csv")
    assert run_json("datasets", "put", people, "people")["reference"] == "dataset/people@v1"
    (listed,) = run_json("datasets", "list")
    assert listed == stored
    assert "dataset/people@v1" in run("datasets", "list").stdout
    shown = run_json("datasets", "show", "people@production")
    assert [column["name"] for column in shown["profile"]] == ["id", "name", "age"]
    assert shown["profile"][2]["nulls"] == 1
    table = run("datasets", "show", "people").stdout
    assert "3 rows (all 3), csv" in table
    assert "Ann (1)" in table
    one = run("datasets", "show", "people", "--column", "age").stdout
    assert "mean 40, std 14.14" in one


def test_two_versions_are_compared(people: Path, changed: Path) -> None:
    run("datasets", "put", people, "people")
    run("datasets", "put", changed, "people")
    found = run_json("datasets", "diff", "people@v1", "people@v2", "--key", "id")
    assert {name: found["rows"][name] for name in ("added", "removed", "changed")} == {
        "added": 1,
        "removed": 1,
        "changed": 1,
    }
    assert [change["name"] for change in found["schema"]] == ["town"]
    assert {item["column"] for item in found["drift"]} == {"id", "name", "age"}
    text = run("datasets", "diff", "people@v1", "people@v2", "--key", "id").stdout
    assert "1 added, 1 removed, 1 changed, 1 unchanged" in text
    assert "~ id=1: age 30 -> 31" in text
    assert "column 'town': absent -> string" in text
    assert "PSI" in text
    same = run("datasets", "diff", "people@v1", "people@v1").stdout
    assert "0 added, 0 removed, 3 unchanged" in same


def test_first_rows_are_printed(tmp_path: Path, people: Path) -> None:
    run("datasets", "put", people, "people")
    assert run_json("datasets", "head", "people", "-n", 2) == [
        {"id": 1, "name": "Ann", "age": 30},
        {"id": 2, "name": "Bob", "age": None},
    ]
    assert "Cleo" in run("datasets", "head", "people").stdout
    frame = pl.DataFrame(
        {"data": [b"\x00\xff"], "day": [pl.Series(["2024-05-01"]).str.to_date()[0]], "list": [[1]]}
    )
    frame.write_parquet(tmp_path / "odd.parquet")
    run("datasets", "put", tmp_path / "odd.parquet", "odd")
    assert run_json("datasets", "head", "odd") == [
        {"data": "AP8=", "day": "2024-05-01", "list": [1]}
    ]


def test_splits_are_named_on_the_command_line(people: Path, changed: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole.csv"
    whole.write_text("id,name,age\n9,Zoe,1\n")
    stored = run_json("datasets", "put", f"train={people}", f"test={whole}", "parts")
    assert stored["splits"] == {"train": 3, "test": 1}
    assert len(run_json("datasets", "head", "parts", "--split", "test")) == 1
    shown = run_json("datasets", "show", "parts", "--split", "test")
    assert shown["profile"][0]["maximum"] == 9
    both = run_json("datasets", "put", people, whole, "together")
    assert both["splits"] == {"all": 4}
    run("datasets", "put", f"train={people}", whole, "mixed", code=2)
    run("datasets", "put", f"a={people}", f"a={whole}", "twice", code=2)


def test_csv_is_read_as_told_and_parents_are_kept(tmp_path: Path, people: Path) -> None:
    path = tmp_path / "odd.csv"
    path.write_text("a;b\n1;?\n2;x\n")
    run("datasets", "put", people, "people")
    words = ("--delimiter", ";", "--null", "?", "--from", "source=dataset/people")
    stored = run_json("datasets", "put", path, "odd", *words)
    assert stored["columns"] == 2
    assert run_json("datasets", "show", "odd")["profile"][1]["nulls"] == 1
    parents = run_json("artifacts", "show", "dataset/odd")["parents"]
    assert [parent["role"] for parent in parents] == ["source"]
    run("datasets", "put", path, "odd", "--from", "nothing", code=2)


def test_what_is_wrong_is_one_line(tmp_path: Path, people: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text("a,b\n1,2\n3\n")
    error = run("datasets", "put", path, "bad", code=1).stderr
    assert error == "ragstone: 'bad.csv', line 3: 1 values for 2 columns in '3'\n"
    run("datasets", "put", people, "people")
    assert "did you mean 'dataset/people'" in run("datasets", "head", "poeple", code=1).stderr
    assert (
        "did you mean 'age'" in run("datasets", "show", "people", "--column", "aeg", code=1).stderr
    )
    assert "No datasets" not in run("datasets", "list").stderr


def test_empty_store_lists_nothing() -> None:
    assert "ragstone datasets put" in run("datasets", "list").stderr
    assert run_json("datasets", "list") == []

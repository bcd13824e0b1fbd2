"""`ragstone models` in the terminal: train, explore and schema."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import polars as pl
import pytest
import yaml
from typer.testing import CliRunner, Result

import loans
from service.cli.entry import app

pytest.importorskip("skl2onnx")
pytestmark = pytest.mark.usefixtures("migrated_here")


def models(*words: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, ["models", *words])
    assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
    return result


def test_a_model_is_trained_from_a_file_and_told_in_figures(tmp_path: Path) -> None:
    path = loans.write(tmp_path / "loans", register={"name": "loans"}, candidates=[])
    said = models("train", str(path), "--folder", str(tmp_path / "run"))
    assert said.stdout.splitlines()[0] == "model/loans@v1"
    assert "log_loss" in said.stdout
    assert "logistic_regression, served as onnx" in said.stderr
    told = json.loads(models("train", str(path), "--json").stdout)
    assert told["model"] == "model/loans@v2"
    assert told["parity"]["holds"] is True


def test_a_table_is_explored_and_its_page_written(tmp_path: Path) -> None:
    rows = loans.table()
    leak = (rows["outcome"] == "failed").cast(pl.Int64)
    rows.with_columns(reminders=leak).write_parquet(tmp_path / "loans.parquet")
    page = tmp_path / "page.html"
    words = (str(tmp_path / "loans.parquet"), "--target", "outcome")
    said = models("explore", *words, "-o", str(page))
    assert "'reminders' alone predicts the target" in said.stdout
    assert page.read_bytes().startswith(b"<!doctype html>")
    found = json.loads(models("explore", *words, "--json").stdout)
    assert found["powers"][0]["column"] == "reminders"
    assert found["rows"] == 600


def test_wrong_words_are_refused_in_a_line(tmp_path: Path) -> None:
    loans.write(tmp_path)
    table = str(tmp_path / "loans.csv")
    assert "--task is 'guess'" in models("explore", table, "--task", "guess", code=1).stderr
    assert (
        "No column 'outcomes'; did you mean"
        in models("explore", table, "--target", "outcomes", code=1).stderr
    )
    assert "No specification" in models("train", str(tmp_path / "none.yaml"), code=1).stderr


def test_the_schema_takes_what_is_read_and_refuses_what_is_not(tmp_path: Path) -> None:
    schema = json.loads(models("schema").stdout)
    jsonschema.validate(yaml.safe_load(loans.write(tmp_path).read_text()), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**loans.asked(), "surprise": 1}, schema)


def test_a_model_is_retrained_and_the_evidence_named(tmp_path: Path) -> None:
    folder = tmp_path / "loans"
    loans.write(folder, candidates=[])
    asked = {"name": "loans", "spec": "loans.yaml", "log": {"rows": "loans.csv", "time": "month"}}
    path = folder / "retraining.yaml"
    path.write_text(yaml.safe_dump(asked))
    jsonschema.validate(asked, json.loads(models("schema", "retraining").stdout))
    told = json.loads(models("retrain", str(path), "--cause", "drift", "--json").stdout)
    assert (told["decision"], told["challenger"]) == ("promoted", "model/loans@v1")
    assert told["evidence"] == "retraining/loans@v1"
    again = models("retrain", str(path), code=1)
    assert again.stdout.startswith("refused model/loans@v2")
    assert "latest rows" in again.stdout

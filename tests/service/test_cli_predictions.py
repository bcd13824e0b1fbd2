"""`ragstone models list`, `show` and `predict`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

import classical_models
import loans
from classical_models import classifier, put
from infra.datasets.datasets import Datasets
from infra.settings import load_settings
from service.app import create_app
from service.cli.entry import app
from service.wiring import Components

pytestmark = pytest.mark.usefixtures("migrated_here")
ROWS = classical_models.rows(8, seed=2)


@pytest.fixture(autouse=True)
def _stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model with two versions, a language model of the same kind, and a dataset."""
    monkeypatch.setenv("RAGSTONE_RETRIEVAL__EMBEDDER", "hashing")
    parts = Components(load_settings())
    put(parts.artifacts, classifier(0), tmp_path / "0")
    put(parts.artifacts, classifier(1), tmp_path / "1", alias="candidate")
    (tmp_path / "llm").mkdir()
    (tmp_path / "llm" / "config.json").write_text("{}")
    parts.artifacts.put(tmp_path / "llm", "model/llama")
    Datasets(parts.artifacts).put(pl.DataFrame(ROWS), "customers")
    parts.close()


def run(*words: str, code: int = 0) -> Any:
    result = CliRunner().invoke(app, ["models", *words])
    assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
    return result


def run_json(*words: str) -> Any:
    return json.loads(run(*words, "--json").stdout)


def test_models_are_listed_with_versions_and_aliases() -> None:
    rows = run_json("list")
    assert [(each["model"], each["version"], each["aliases"]) for each in rows] == [
        ("model/churn", 2, ["candidate"]),
        ("model/churn", 1, ["production"]),
    ]
    assert {each["task"] for each in rows} == {"classification"}
    assert "churn" in run("list").stdout


def test_version_is_shown_as_the_service_would_load_it() -> None:
    shown = run_json("show", "churn")
    assert (shown["model"], shown["format"], shown["target"]) == (
        "model/churn@v1",
        "onnx",
        "churned",
    )
    assert [each["name"] for each in shown["inputs"]] == list(classical_models.NAMES)
    assert run_json("show", "churn@candidate")["model"] == "model/churn@v2"
    assert "may be missing" in run("show", "churn@v2").stdout
    assert "chrun" in run("show", "chrun", code=1).stderr


def test_file_is_predicted(tmp_path: Path) -> None:
    pl.DataFrame(ROWS).write_parquet(tmp_path / "rows.parquet")
    where = ["--data", str(tmp_path / "rows.parquet"), "--output", str(tmp_path / "out.parquet")]
    told = run_json("predict", "churn", *where)
    assert (told["model"], told["rows"]) == ("model/churn@v1", len(ROWS))
    assert pl.read_parquet(tmp_path / "out.parquet")["prediction"].len() == len(ROWS)
    assert "8 rows" in run("predict", "churn@v2", *where).stdout


def test_dataset_is_predicted_by_a_job() -> None:
    words = ["--data", "dataset/customers@v1", "--output", "predictions/customers"]
    told = run_json("predict", "churn", *words)
    assert told["state"] == "queued"
    assert "ragstone jobs show job_" in run("predict", "churn", *words).stdout


@pytest.mark.parametrize(
    ("data", "output"),
    [("rows.parquet", "predictions/x"), ("dataset/customers", "out.parquet")],
)
def test_file_and_store_do_not_mix(data: str, output: str) -> None:
    refused = run("predict", "churn", "--data", data, "--output", output, code=1)
    assert "predictions/" in refused.stderr


def test_trained_model_says_online_what_training_measured_offline(tmp_path: Path) -> None:
    spec = loans.write(tmp_path / "loans", register={"name": "loans"}, candidates=[])
    run("train", str(spec), "--folder", str(tmp_path / "run"))
    parts = Components(load_settings())
    folder = parts.artifacts.checkout("model/loans@v1", tmp_path / "model")
    parts.artifacts.tag("model/loans@v1", "production")
    parts.close()
    measured = pl.read_parquet(folder / "reference.parquet")
    rows = measured.drop("prediction", "probability")
    rows.write_parquet(tmp_path / "held.parquet")
    output = tmp_path / "scored.parquet"
    run("predict", "loans", "--data", str(tmp_path / "held.parquet"), "--output", str(output))
    found = pl.read_parquet(output)
    assert found["prediction"].to_list() == measured["prediction"].to_list()
    np.testing.assert_allclose(found["probability"], measured["probability"], atol=1e-5)
    names = [each["name"] for each in run_json("show", "loans")["inputs"]]
    asked = [{name: row[name] for name in names} for row in rows.head(50).to_dicts()]
    with TestClient(create_app(Components(load_settings())), base_url="http://127.0.0.1") as client:
        told = client.post("/v1/predict", json={"model": "loans", "rows": asked}).json()
    assert [each["prediction"] for each in told["predictions"]] == measured["prediction"].to_list()[
        :50
    ]

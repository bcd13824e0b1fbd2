"""Predictions for whole tables: as a file and as a job, taken up where they stopped."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import classical_models
from classical_models import classifier, put, regressor
from infra.datasets.datasets import Datasets
from infra.errors import InvalidRequest, NotFound
from service import batch_predicting
from service.batch_predicting import predict_file, write_parts
from service.prediction.loading import Loaded
from service.wiring import Components

ROWS = classical_models.rows(90, seed=8)


@pytest.fixture
def parts(components: Components, tmp_path: Path) -> Components:
    put(components.artifacts, classifier(0), tmp_path / "churn")
    put(components.artifacts, regressor(), tmp_path / "price", name="price")
    return components


@pytest.fixture
def loaded(parts: Components) -> Loaded:
    return batch_predicting.opened(parts, "churn")


def probabilities(rows: list[dict[str, Any]]) -> Any:
    frame = classical_models.frame_of(classical_models.columns_of(rows))
    return classifier(0).pipeline.predict_proba(frame)


def write(path: Path, rows: list[dict[str, Any]] = ROWS) -> Path:
    frame = pl.DataFrame([{"customer": at, **row} for at, row in enumerate(rows)])
    {".parquet": frame.write_parquet, ".csv": frame.write_csv, ".jsonl": frame.write_ndjson}[
        path.suffix
    ](path)
    return path


def batches(rows: list[dict[str, Any]], size: int) -> Iterator[pa.RecordBatch]:
    for at in range(0, len(rows), size):
        yield pa.RecordBatch.from_pylist(rows[at : at + size])


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".jsonl"])
def test_file_is_predicted_row_by_row(loaded: Loaded, tmp_path: Path, ending: str) -> None:
    output = tmp_path / "scored.parquet"
    assert predict_file(loaded, write(tmp_path / f"rows{ending}"), output) == len(ROWS)
    found = pl.read_parquet(output)
    assert found["customer"].to_list() == list(range(len(ROWS)))
    wanted = probabilities(ROWS)
    np.testing.assert_allclose(np.stack(found["probabilities"].to_list()), wanted, atol=1e-5)
    assert found["prediction"].to_list() == ["yes" if row[1] >= 0.5 else "no" for row in wanted]
    np.testing.assert_allclose(found["probability"], wanted.max(axis=1), atol=1e-5)
    assert found["warnings"].to_list() == [0] * len(ROWS)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".scored")] == []


def test_values_of_a_regression_have_no_probability(parts: Components, tmp_path: Path) -> None:
    output = tmp_path / "scored.parquet"
    loaded = batch_predicting.opened(parts, "price@v1")
    predict_file(loaded, write(tmp_path / "rows.parquet"), output)
    found = pl.read_parquet(output)
    assert "probability" not in found.columns
    frame = classical_models.frame_of(classical_models.columns_of(ROWS))
    wanted = regressor().pipeline.predict(frame)
    np.testing.assert_allclose(found["prediction"], wanted, rtol=1e-5)


def test_parts_that_were_written_are_not_predicted_again(loaded: Loaded, tmp_path: Path) -> None:
    def broken_off() -> Iterator[pa.RecordBatch]:
        yield from list(batches(ROWS, 30))[:2]
        raise KeyboardInterrupt

    told: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        write_parts(loaded, broken_off(), tmp_path / "parts", tell=told.append)
    written = sorted((tmp_path / "parts").glob("*.parquet"))
    assert len(written) == 2
    before = [path.stat().st_mtime_ns for path in written]
    write_parts(loaded, batches(ROWS, 30), tmp_path / "parts", tell=told.append)
    assert [path.stat().st_mtime_ns for path in written] == before
    found = pq.read_table(tmp_path / "parts")
    assert found.num_rows == len(ROWS)
    assert told == [30, 60, 30, 60, 90]


@pytest.mark.parametrize(
    ("change", "words"),
    [({"visits": None}, "visits"), ({"visits": 2.5}, "visits"), ({"prediction": 1}, "prediction")],
)
def test_rows_that_are_not_the_models_are_refused_with_their_place(
    loaded: Loaded, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    rows = (
        [{**row, **dict.fromkeys(change)} for row in ROWS[:40]] if "prediction" in change else ROWS
    )
    rows = [*rows[:35], {**rows[35], **change}]
    with pytest.raises(InvalidRequest, match=words):
        write_parts(loaded, batches(rows, 20), tmp_path / "parts", tell=lambda _: None)


def test_missing_column_empty_table_and_missing_file_are_refused(
    loaded: Loaded, tmp_path: Path
) -> None:
    rows = [{"age": 1.0, "visits": 2, "trial": True}]
    with pytest.raises(InvalidRequest, match="plan"):
        write_parts(loaded, batches(rows, 1), tmp_path / "one", tell=lambda _: None)
    with pytest.raises(InvalidRequest, match="no row"):
        write_parts(loaded, iter(()), tmp_path / "two", tell=lambda _: None)
    with pytest.raises(NotFound):
        predict_file(loaded, tmp_path / "nothing.parquet", tmp_path / "out.parquet")


def finished(parts: Components, **arguments: str) -> Any:
    job = parts.jobs.start(batch_predicting.PREDICT, arguments)
    parts.worker.start()
    while not (found := parts.jobs.get(job.id)).is_finished:
        time.sleep(0.02)
    return found


def test_job_makes_an_artifact_of_a_dataset(parts: Components) -> None:
    datasets = Datasets(parts.artifacts)
    datasets.put(pl.DataFrame(ROWS), "customers")
    job = finished(parts, model="churn", data="customers", name="customers")
    assert job.state == "succeeded", job.error
    assert job.result["rows"] == len(ROWS)
    assert job.result["artifact"] == "predictions/customers@v1"
    found = datasets.load("predictions/customers@v1")
    np.testing.assert_allclose(
        np.stack(found.column("probabilities").to_pylist()), probabilities(ROWS), atol=1e-5
    )
    roles = {each.role for each in parts.artifacts.resolve("predictions/customers@v1").parents}
    assert roles == {"model", "rows"}
    assert not (parts.settings.data_folder / "predicting" / job.id).exists()


def test_job_over_a_table_that_is_not_there_fails_at_once(parts: Components) -> None:
    job = finished(parts, model="churn", data="nothing", name="x")
    assert job.state == "failed"
    assert "nothing" in json.dumps(job.error)

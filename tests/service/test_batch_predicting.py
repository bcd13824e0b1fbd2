"""Predictions for whole tables: as a file and as a job, taken up where they stopped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import classical_models
from classical_models import classifier, put, regressor
from infra.artifacts.store import open_store
from infra.datasets.datasets import Datasets
from infra.errors import InvalidRequest, NotFound
from infra.model_settings import Models as Options
from migrated import open_migrated
from service.models import batch_predicting
from service.models.batch_predicting import predict_file, write_parts
from service.prediction import loading
from service.prediction.loading import Loaded
from service.wiring import Components
from waiting import until

ROWS = classical_models.rows(90, seed=8)


@pytest.fixture
def parts(components: Components, tmp_path: Path) -> Components:
    put(components.artifacts, classifier(0), tmp_path / "churn")
    return components


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Loaded]:
    folder = tmp_path_factory.mktemp("models")
    database = open_migrated(folder / "ragstone.db")
    store = open_store(folder / "artifacts", database)
    put(store, classifier(0), folder / "churn")
    put(store, regressor(), folder / "price", name="price")
    found = {
        name: loading.read(store, f"model/{name}@production", Options())
        for name in ("churn", "price")
    }
    database.close()
    return found


@pytest.fixture
def loaded(models: dict[str, Loaded]) -> Loaded:
    return models["churn"]


def here(loaded: Loaded) -> batch_predicting.Score:
    """Return what predicts parts in this process."""
    return partial(batch_predicting._scored_here, loaded)


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


def test_values_of_a_regression_have_no_probability(
    models: dict[str, Loaded], tmp_path: Path
) -> None:
    output = tmp_path / "scored.parquet"
    predict_file(models["price"], write(tmp_path / "rows.parquet"), output)
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
        write_parts(here(loaded), broken_off(), tmp_path / "parts", tell=told.append)
    written = sorted((tmp_path / "parts").glob("*.parquet"))
    assert len(written) == 2
    before = [path.stat().st_mtime_ns for path in written]
    write_parts(here(loaded), batches(ROWS, 30), tmp_path / "parts", tell=told.append)
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
        write_parts(here(loaded), batches(rows, 20), tmp_path / "parts", tell=lambda _: None)


def test_missing_column_empty_table_and_missing_file_are_refused(
    loaded: Loaded, tmp_path: Path
) -> None:
    rows = [{"age": 1.0, "visits": 2, "trial": True}]
    with pytest.raises(InvalidRequest, match="plan"):
        write_parts(here(loaded), batches(rows, 1), tmp_path / "one", tell=lambda _: None)
    with pytest.raises(InvalidRequest, match="no row"):
        write_parts(here(loaded), iter(()), tmp_path / "two", tell=lambda _: None)
    with pytest.raises(NotFound):
        predict_file(loaded, tmp_path / "nothing.parquet", tmp_path / "out.parquet")


def left(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_rows_that_are_refused_leave_nothing_behind(loaded: Loaded, tmp_path: Path) -> None:
    rows = [{name: row[name] for name in row if name != "visits"} for row in ROWS[:5]]
    source = write(tmp_path / "rows.parquet", rows)
    with pytest.raises(InvalidRequest, match="visits"):
        predict_file(loaded, source, tmp_path / "scored.parquet")
    assert left(tmp_path) == []


def test_what_broke_off_is_kept_to_go_on_with(
    loaded: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left on the device")

    source, output = write(tmp_path / "rows.parquet"), tmp_path / "scored.parquet"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(OSError, match="no space"):
            predict_file(loaded, source, output)
    assert [name.endswith(".parts") for name in left(tmp_path)] == [True]
    assert predict_file(loaded, source, output) == len(ROWS)
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    ("output", "error"),
    [("rows.parquet", InvalidRequest), (".", InvalidRequest), ("none/x.parquet", NotFound)],
)
def test_place_that_cannot_be_written_to_is_refused_before_anything_is_predicted(
    loaded: Loaded, tmp_path: Path, output: str, error: type[Exception]
) -> None:
    source = write(tmp_path / "rows.parquet")
    before = source.read_bytes()
    with pytest.raises(error):
        predict_file(loaded, source, tmp_path / output)
    assert source.read_bytes() == before
    assert left(tmp_path) == []


def finished(parts: Components, *asked: dict[str, str]) -> list[Any]:
    ids = [parts.jobs.start(batch_predicting.PREDICT, arguments).id for arguments in asked]
    parts.worker.start()
    until(lambda: all(parts.jobs.get(each).is_finished for each in ids))
    return [parts.jobs.get(each) for each in ids]


def test_job_makes_an_artifact_of_a_dataset(parts: Components) -> None:
    datasets = Datasets(parts.artifacts)
    datasets.put(pl.DataFrame(ROWS), "customers")
    given_up = parts.settings.data_folder / "predicting" / "job-of-old"
    given_up.mkdir(parents=True)
    (job,) = finished(parts, {"model": "churn", "data": "customers", "name": "customers"})
    assert job.state == "succeeded", job.error
    assert job.result["rows"] == len(ROWS)
    assert job.result["artifact"] == "predictions/customers@v1"
    found = datasets.load("predictions/customers@v1")
    np.testing.assert_allclose(
        np.stack(found.column("probabilities").to_pylist()), probabilities(ROWS), atol=1e-5
    )
    roles = {each.role for each in parts.artifacts.resolve("predictions/customers@v1").parents}
    assert roles == {"model", "rows"}
    assert list(given_up.parent.iterdir()) == []


def test_job_that_cannot_end_well_fails_at_once(parts: Components) -> None:
    asked = {"model": "churn", "data": "nothing", "name": "x"}
    no_rows, no_name = finished(parts, asked, {**asked, "name": "no such/name"})
    assert (no_rows.state, no_name.state) == ("failed", "failed")
    assert "nothing" in json.dumps(no_rows.error)
    assert "is not a name" in json.dumps(no_name.error)

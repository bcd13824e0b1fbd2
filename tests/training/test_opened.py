"""A stored version that is opened again: whole, or refused by what is wrong with it."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import skops.io

import classical_models
from classical_models import Made, classifier
from infra import classical
from infra.artifacts.store import ArtifactStore, open_store
from infra.errors import InvalidRequest, NotFound
from migrated import open_migrated
from training.tabular import exporting
from training.tabular.opened import open_model


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ArtifactStore]:
    folder = tmp_path_factory.mktemp("opened")
    database = open_migrated(folder / "ragstone.db")
    yield open_store(folder / "artifacts", database)
    database.close()


def put(store: ArtifactStore, folder: Path, made: Made, reference: bytes | None) -> str:
    """Store a model with what lies beside it, of which either may be absent."""
    folder.mkdir()
    if made.skops:
        (folder / "model.skops").write_bytes(made.skops)
    if reference is not None:
        (folder / "reference.parquet").write_bytes(reference)
    classical.write(folder, made.model)
    return str(store.put(folder, "model/churn"))


def rows() -> bytes:
    file = io.BytesIO()
    pl.DataFrame(classical_models.rows(5)).with_columns(churned=pl.lit("yes")).write_parquet(file)
    return file.getvalue()


def test_a_version_is_asked_of_raw_rows(store: ArtifactStore, tmp_path: Path) -> None:
    made = classifier()
    found = open_model(store, put(store, tmp_path / "made", made, rows()), tmp_path / "opened")
    said = made.pipeline.predict(
        classical_models.frame_of(classical_models.columns_of(classical_models.rows(5)))
    )
    assert found.losses(found.held_out).tolist() == [float(each != "yes") for each in said]


@pytest.mark.parametrize(
    ("changes", "reference", "said"),
    [
        ({"skops": b""}, rows(), r"model\.skops"),
        ({}, None, r"reference\.parquet"),
    ],
)
def test_a_version_that_lacks_a_file_is_not_found_by_its_name(
    store: ArtifactStore, tmp_path: Path, changes: dict[str, bytes], reference: bytes, said: str
) -> None:
    name = put(store, tmp_path / "made", replace(classifier(), **changes), reference)
    with pytest.raises(NotFound, match=said):
        open_model(store, name, tmp_path / "opened")


def test_rows_that_are_no_parquet_are_refused(store: ArtifactStore, tmp_path: Path) -> None:
    name = put(store, tmp_path / "made", classifier(), b"PAR1 and no more")
    with pytest.raises(InvalidRequest, match=r"reference\.parquet"):
        open_model(store, name, tmp_path / "opened")


def test_a_pipeline_is_read_back_only_if_small_enough_and_of_reviewed_types(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.skops"
    path.write_bytes(skops.io.dumps({"path": Path("x")}))
    with pytest.raises(InvalidRequest, match=r"nobody reviewed: pathlib"):
        exporting.from_skops(path, skops.io.get_untrusted_types(file=path))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as members:
        members.writestr("schema.json", b" " * 100_000)
    monkeypatch.setattr(exporting, "MAX_BYTES", 10_000)
    with pytest.raises(InvalidRequest, match="unpacks"):
        exporting.from_skops(path, [])
    path.write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(InvalidRequest, match="damaged"):
        exporting.from_skops(path, [])

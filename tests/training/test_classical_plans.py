"""Every sampling plan, way of dividing and kind of target of a classical model is carried out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import loans
from infra import classical
from training.classical import Around, read, train

pytest.importorskip("skl2onnx")


@pytest.mark.parametrize(
    "changes",
    [
        {"sampling": {"plan": "weighted", "weight": "weight"}, "candidates": []},
        {"sampling": {"plan": "stratified", "by": "place", "rows": 300}, "candidates": []},
        {"data__group": "customer", "imbalance": {"resampling": "over"}, "candidates": []},
        {"data__time": "month", "imbalance": {"resampling": "under"}, "candidates": []},
        {"search": {"nested": True}, "candidates": [], "features__categories": "ordinal"},
        {"data__target": "rating", "features": {}, "search__sampler": "tpe", "search__trials": 2},
        {"data__target": "guarantee", "candidates": []},
    ],
)
def test_every_plan_and_kind_of_target_is_carried_out(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    rows = loans.table(400)
    # Whatever the target is, something tells of it.
    told = rows.with_columns(
        income=pl.col("income").fill_null(3_000)
        + 1_500 * pl.col("guarantee").cast(pl.Float64)
        + 900 * pl.col("rating")
    )
    spec = loans.write(tmp_path, told, **changes)
    outcome = train(read(spec), tmp_path / "run", Around(tmp_path))
    model = classical.read(Path(outcome.model))
    assert outcome.format == "onnx"
    assert outcome.held_out["log_loss"] < outcome.constant["log_loss"]
    known = {"rating": (1, 2, 3), "guarantee": (False, True)}
    assert model.classes == known.get(model.target, ("failed", "paid"))
    kept = pl.read_parquet(Path(outcome.model) / "reference.parquet")
    assert set(kept["prediction"]) <= set(model.classes or ())
    figures = json.loads((Path(outcome.model) / "evaluation.json").read_text())
    assert len(figures["nested"]) == (3 if "search" in changes else 0)

"""A model with feature views is retrained from what it was asked: keys and times are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from starlette.testclient import TestClient

import accounts
from infra.datasets.datasets import Datasets
from service.app import create_app
from service.models import batch_caching, retraining
from service.prediction.forgetting import Wanted
from service.wiring import Components
from service.work import watching
from training import classical

pytest.importorskip("skl2onnx")


@pytest.fixture
def parts(tmp_path: Path, parts_in: Callable[..., Components]) -> Iterator[Components]:
    """The model `orders` at work, its specification, and a monitor of it."""
    monitor = {
        "reference": "model/orders@v1",
        "kind": "prediction",
        "model": "model/orders",
        "features": ["feature.amount", "feature.balance"],
    }
    components = parts_in(tmp_path, models={"keep": "inputs"}, watch={"monitors": {"o": monitor}})
    accounts.put(components.artifacts)
    (tmp_path / "orders.yaml").write_text(yaml.safe_dump(accounts.asked()))
    with pytest.importorskip("threadpoolctl").threadpool_limits(1):
        around = classical.Around(tmp_path, store=components.artifacts)
        classical.train(classical.parse(accounts.asked()), tmp_path / "run", around)
        yield components


def predict(client: TestClient, rows: list[dict[str, Any]]) -> list[str]:
    answer = client.post("/v1/predict", json={"model": "orders", "rows": rows})
    assert answer.status_code == 200, answer.text
    return [each["id"] for each in answer.json()["predictions"]]


def label(client: TestClient, id: str, value: str) -> None:
    said = {"interaction_id": id, "kind": "label", "value": value}
    assert client.post("/v1/feedback", json=said).status_code in {200, 201}


def test_model_with_views_is_watched_and_retrained_by_its_own_log(
    parts: Components, tmp_path: Path
) -> None:
    orders = accounts.orders(200, seed=9)
    rows = orders.select("customer", "at", "amount").to_dicts()
    before = datetime.now(UTC)
    with TestClient(create_app(parts), base_url="http://127.0.0.1") as client:
        ids = predict(client, [{**row, "at": row["at"].isoformat()} for row in rows])
        predict(client, [{"customer": "c1", "amount": 5.0}])
        parts.interactions.flush()
        (seen,) = watching.look(parts, now=datetime.now(UTC) + timedelta(minutes=1))
        assert seen.report["rows"]["measurement"] == len(rows) + 1
        watched = {each["feature"] for each in seen.report["features"]}
        assert watched >= {"feature.amount", "feature.balance"}, "one of them from the view"
        for id, value in zip(ids, orders["outcome"].to_list(), strict=True):
            label(client, id, value)
        told: list[str] = []
        asked = {
            "name": "orders",
            "spec": "orders.yaml",
            "log": {},
            "formation": {"method": "rolling", "rows": 150},
            "labels": {"min_rows": 40, "min_share": 0.5},
        }
        path = tmp_path / "retraining.yaml"
        path.write_text(yaml.safe_dump(asked))
        result = retraining.run(parts, path, note=told.append)
        log = Datasets(parts.artifacts).frame("dataset/orders-predictions")
        assert result.challenger == "model/orders@v2", told
        assert result.rows["labelled"] == len(rows)
        assert set(log.columns) == {"customer", "at", "amount", "outcome"}
        labelled = log.filter(pl.col("outcome").is_not_null())
        assert labelled.select("customer", "at", "amount").to_dicts() == rows
        late = log.filter(pl.col("outcome").is_null()).row(0, named=True)
        assert (late["customer"], late["amount"]) == ("c1", 5.0)
        assert before <= late["at"] <= datetime.now(UTC)

        known = batch_caching.forget(parts, Wanted(key={"customer": "c1"}), dry_run=True)
        assert known.logged == sum(row["customer"] == "c1" for row in rows) + 1

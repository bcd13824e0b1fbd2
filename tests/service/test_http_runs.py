"""`/v1/runs`: list, read, compare, delete, and metrics thinned for a plot."""

from __future__ import annotations

import math
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.wiring import Components


@pytest.fixture
def parts(client: TestClient) -> Components:
    components: Components = client.app.state.components  # type: ignore[attr-defined]
    return components


@pytest.fixture
def two(parts: Components) -> list[str]:
    ids = []
    for rate in (0.1, 0.01):
        told = {"optimizer": {"rate": rate, "name": "adam"}, "odd": math.nan}
        with parts.tracker.run("sft", name=f"rate {rate}", parameters=told) as run:
            for step in range(1000):
                run.log({"loss": rate * step}, step=step)
            run.log({"odd": math.nan})
            run.log({"odd": -math.inf})
            run.use("dataset/faq@v1", role="train", digest="sha256:00")
            ids.append(run.id)
    return ids


def get(client: TestClient, path: str, code: int = 200, **parameters: Any) -> Any:
    response = client.get(f"/v1/runs{path}", params=parameters)
    assert response.status_code == code, response.text
    return response.json()


def test_list_is_newest_first_and_paged(client: TestClient, two: list[str]) -> None:
    first = get(client, "", limit=1)
    assert [each["id"] for each in first["data"]] == [two[1]]
    assert first["has_more"] is True
    second = get(client, "", limit=1, after=first["last_id"])
    assert [each["id"] for each in second["data"]] == [two[0]]
    assert second["has_more"] is False
    assert get(client, "", kind="evaluation")["data"] == []
    assert len(get(client, "", state="finished", name="rate 0.1")["data"]) == 1
    assert get(client, "", after="run-nothing", code=404)["error"]["code"] == "run_not_found"
    assert get(client, "", state="done", code=400)["error"]["param"] == "state"


def test_run_is_whole(client: TestClient, two: list[str]) -> None:
    found = get(client, f"/{two[0]}")
    assert found["object"] == "run"
    assert found["state"] == "finished"
    assert found["parameters"] == {"optimizer": {"rate": 0.1, "name": "adam"}, "odd": "NaN"}
    assert found["metrics"]["loss"]["count"] == 1000
    assert found["metrics"]["odd"]["last"] == "-Infinity"
    assert found["artifacts"][0]["reference"] == "dataset/faq@v1"
    assert found["started_at"].endswith("Z")
    assert get(client, "/run-nothing", code=404)["error"]["code"] == "run_not_found"


def test_metrics_are_thinned_and_keep_extremes(client: TestClient, two: list[str]) -> None:
    path = f"/{two[0]}/metrics"
    (loss,) = get(client, path, name="loss", buckets=10)["data"]
    assert len(loss["buckets"]) == 10
    assert sum(bucket["count"] for bucket in loss["buckets"]) == 1000
    assert loss["buckets"][0]["low"] == 0.0
    assert loss["buckets"][-1]["high"] == loss["high"] == pytest.approx(99.9)
    loss, odd = get(client, path, name=["loss", "odd"], buckets=5000)["data"]
    assert len(loss["buckets"]) == 1000
    assert [bucket["last"] for bucket in odd["buckets"]] == ["NaN", "-Infinity"]
    message = get(client, path, name="los", code=404)["error"]["message"]
    assert "did you mean 'loss'" in message
    assert get(client, path, code=400)["error"]["param"] == "name"
    assert get(client, path, name="loss", buckets=0, code=400)["error"]["param"] == "buckets"
    get(client, "/run-nothing/metrics", name="loss", code=404)


def test_runs_are_compared(client: TestClient, two: list[str]) -> None:
    compared = get(client, "/compare", id=two)
    assert [each["name"] for each in compared["runs"]] == ["rate 0.1", "rate 0.01"]
    rows = {row["name"]: row for row in compared["rows"]}
    assert rows["optimizer.rate"]["values"] == [0.1, 0.01]
    assert rows["optimizer.rate"]["differs"] is True
    assert rows["odd"]["differs"] is False
    only = get(client, "/compare", id=two, only_differences=True)
    assert all(row["differs"] for row in only["rows"])
    assert get(client, "/compare", id=two[0], code=400)["error"]["param"] == "id"
    get(client, "/compare", id=[two[0], "run-nothing"], code=404)


def test_run_is_deleted_once_it_is_over(
    client: TestClient, two: list[str], parts: Components
) -> None:
    response = client.delete(f"/v1/runs/{two[0]}")
    assert response.json() == {"id": two[0], "object": "run.deleted", "deleted": True}
    assert client.delete(f"/v1/runs/{two[0]}").status_code == 404
    with parts.tracker.run("sft") as run:
        refused = client.delete(f"/v1/runs/{run.id}")
        assert refused.status_code == 409
        assert refused.json()["error"]["code"] == "conflict"


def test_runs_ask_for_a_key_like_everything_else(fast_settings: Any, open_client: Any) -> None:
    client = open_client(fast_settings(server={"authentication": "on"}))
    assert client.get("/v1/runs").status_code == 401
    _, text = client.app.state.components.keys.create("test")
    headers = {"authorization": f"Bearer {text}"}
    assert client.get("/v1/runs", headers=headers).status_code == 200

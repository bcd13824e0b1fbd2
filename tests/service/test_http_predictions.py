"""Classical models over HTTP: the Open Inference Protocol, and rows by column name."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

import classical_models
from classical_models import ROW, classifier, put, regressor
from service.app import create_app
from service.callers import Limits
from service.keys import Opens
from service.wiring import Components

HEADER = "inference-header-content-length"


def store_of(client: TestClient) -> Any:
    return client.app.state.components.artifacts  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory, parts_in: Callable[..., Components]
) -> Iterator[TestClient]:
    """The application with models, for those tests that change nothing."""
    folder = tmp_path_factory.mktemp("models")
    app = create_app(parts_in(folder, models={"keep": "inputs", "max_rows": 50}))
    with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        store = store_of(client)
        put(store, classifier(0), folder / "0")
        put(store, classifier(1), folder / "1", alias=None)
        put(store, classifier(2, labels=(0, 1, 2)), folder / "2", name="grade")
        put(store, regressor(), folder / "3", name="price")
        put(store, classifier(0), folder / "4", name="strict", thresholds={"no": 1e-9, "yes": 1.0})
        put(store, classifier(0), folder / "5", name="opaque", features=("one",))
        assert client.post("/v2/repository/models/churn/load").status_code == 200
        yield client


def expected(rows: list[dict[str, Any]], made: Any) -> np.ndarray:
    frame = classical_models.frame_of(classical_models.columns_of(rows))
    predict = getattr(made.pipeline, "predict_proba", made.pipeline.predict)
    return np.asarray(predict(frame))


def predict(client: TestClient, model: str = "churn", **changes: Any) -> Any:
    return client.post("/v1/predict", json={"model": model, "rows": [ROW], **changes})


def tensors(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    kinds = {"age": "FP64", "visits": "INT64", "trial": "BOOL", "plan": "BYTES"}
    return [
        {
            "name": name,
            "datatype": datatype,
            "shape": [len(rows), 1],
            "data": [row[name] for row in rows],
        }
        for name, datatype in kinds.items()
    ]


def infer(client: TestClient, name: str = "churn", **changes: Any) -> Any:
    body = {"inputs": tensors([ROW]), **changes}
    return client.post(f"/v2/models/{name}/infer", json=body)


def test_rows_by_column_name_are_predicted(served: TestClient) -> None:
    rows = classical_models.rows(20, seed=5)
    answer = predict(served, rows=rows)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert told["model"] == "model/churn@v1"
    wanted = expected(rows, classifier(0))
    found = [
        [each["probabilities"][name] for name in ("no", "yes")] for each in told["predictions"]
    ]
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    labels = [each["prediction"] for each in told["predictions"]]
    assert labels == ["yes" if row[1] >= 0.5 else "no" for row in wanted]
    assert [each["id"] for each in told["predictions"]] == [f"{told['id']}-{n}" for n in range(20)]
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize("model", ["churn", "model/churn", "churn@v1", "churn@production"])
def test_model_may_be_named_in_several_ways(served: TestClient, model: str) -> None:
    assert predict(served, model).json()["model"] == "model/churn@v1"


def test_version_that_is_asked_for_answers(served: TestClient) -> None:
    told = predict(served, "churn@v2").json()
    assert told["model"] == "model/churn@v2"
    found = told["predictions"][0]["probabilities"]["yes"]
    assert found == pytest.approx(expected([ROW], classifier(1))[0, 1], abs=1e-5)


def test_numbers_of_classes_and_of_regressions_stay_numbers(served: TestClient) -> None:
    grade = predict(served, "grade").json()["predictions"][0]
    assert grade["prediction"] in (0, 1, 2)
    assert list(grade["probabilities"]) == ["0", "1", "2"]
    price = predict(served, "price").json()["predictions"][0]
    assert price["prediction"] == pytest.approx(expected([ROW], regressor())[0], rel=1e-5)
    assert "probabilities" not in price


@pytest.mark.parametrize(
    "path", ["/v1/predict", "/v2/models/churn/infer", "/v2/models/churn/versions/2/infer"]
)
def test_predictions_are_described_and_other_methods_refused(served: TestClient, path: str) -> None:
    assert served.get(path).status_code == 405
    template = path.replace("churn", "{model_name}").replace("/2/", "/{model_version}/")
    assert "post" in served.get("/openapi.json").json()["paths"][template]


def test_one_row_is_answered_alike_alone_and_among_others(served: TestClient) -> None:
    rows = classical_models.rows(8, seed=9)
    together = predict(served, rows=rows).json()["predictions"]
    for row, other in zip(rows, together, strict=True):
        (alone,) = predict(served, rows=[row]).json()["predictions"]
        assert alone["prediction"] == other["prediction"]
        assert alone["probabilities"] == pytest.approx(other["probabilities"], abs=1e-6)
        inputs = tensors([row])
        told = served.post("/v2/models/churn/infer", json={"inputs": inputs}).json()["outputs"]
        assert told[0]["data"] == [alone["prediction"]]


def test_threshold_decides_which_class_is_told(served: TestClient) -> None:
    rows = classical_models.rows(20, seed=5)
    told = predict(served, "strict", rows=rows).json()["predictions"]
    assert {each["prediction"] for each in told} == {"no"}
    assert max(each["probabilities"]["yes"] for each in told) > 0.5


def test_what_training_never_saw_is_told(served: TestClient) -> None:
    told = predict(served, rows=[ROW, {**ROW, "plan": "gold"}]).json()
    assert told["warnings"] == [{"row": 1, "column": "plan", "kind": "unknown_category"}]


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"model": "chrun"}, 404),
        ({"model": "churn@v9"}, 404),
        ({"model": "churn@nightly"}, 404),
        ({"model": "churn@"}, 400),
        ({"model": ""}, 400),
        ({"model": 3}, 400),
        ({"rows": []}, 400),
        ({"rows": {}}, 400),
        ({"rows": [1]}, 400),
        ({"rows": [{**ROW, "age": "old"}]}, 400),
        ({"rows": [{**ROW, "surname": "Ada"}]}, 400),
        ({"rows": [{"age": 3.0}]}, 400),
        ({"rows": [ROW] * 51}, 413),
        ({"explain": "yes"}, 400),
        ({"more": 1}, 400),
    ],
)
def test_wrong_rows_are_refused_as_openai_would(
    served: TestClient, changes: dict[str, Any], status: int
) -> None:
    answer = predict(served, **changes)
    assert answer.status_code == status, answer.text
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"model": "churn", "rows": [{"age": NaN}]}'])
def test_what_is_no_json_object_is_refused(served: TestClient, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    assert served.post("/v1/predict", content=body, headers=headers).status_code == 400
    answer = served.post("/v2/models/churn/infer", content=body, headers=headers)
    assert answer.status_code == 400
    assert list(answer.json()) == ["error"]


def test_server_and_models_describe_themselves(served: TestClient) -> None:
    server = served.get("/v2").json()
    assert server["name"] == "ragstone"
    assert "binary_tensor_data" in server["extensions"]
    assert served.get("/v2/health/live").json() == {"live": True}
    assert served.get("/v2/health/ready").json() == {"ready": True}
    model = served.get("/v2/models/churn").json()
    assert model["versions"] == ["1", "2"]
    assert model["platform"] == "onnxruntime_onnx"
    assert model["inputs"] == [
        {"name": "age", "datatype": "FP64", "shape": [-1, 1]},
        {"name": "visits", "datatype": "INT64", "shape": [-1, 1]},
        {"name": "trial", "datatype": "BOOL", "shape": [-1, 1]},
        {"name": "plan", "datatype": "BYTES", "shape": [-1, 1]},
    ]
    assert model["outputs"] == [
        {"name": "label", "datatype": "BYTES", "shape": [-1]},
        {"name": "probabilities", "datatype": "FP32", "shape": [-1, 2]},
    ]
    assert served.get("/v2/models/grade").json()["outputs"][0]["datatype"] == "INT64"
    assert served.get("/v2/models/price").json()["outputs"] == [
        {"name": "prediction", "datatype": "FP32", "shape": [-1, 1]}
    ]
    for path in ("/v2/models/churn/ready", "/v2/models/churn/versions/2/ready"):
        assert served.get(path).json() == {"name": "churn", "ready": True}


def test_tensors_are_answered_as_rows_are(served: TestClient) -> None:
    rows = classical_models.rows(10, seed=6)
    answer = infer(served, id="42", inputs=tensors(rows)[::-1])
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert (told["model_name"], told["model_version"], told["id"]) == ("churn", "1", "42")
    label, probabilities = told["outputs"]
    by_rows = predict(served, rows=rows).json()["predictions"]
    assert label["data"] == [each["prediction"] for each in by_rows]
    assert label["shape"] == [10]
    assert probabilities["shape"] == [10, 2]
    found = [value for each in by_rows for value in each["probabilities"].values()]
    np.testing.assert_allclose(probabilities["data"], found, rtol=1e-6)


def test_outputs_that_are_asked_for_are_told_in_their_order(served: TestClient) -> None:
    names = ["probabilities", "label"]
    told = infer(served, outputs=[{"name": name} for name in names]).json()
    assert [each["name"] for each in told["outputs"]] == names
    one = infer(served, outputs=[{"name": "label"}]).json()["outputs"]
    assert [each["name"] for each in one] == ["label"]
    assert infer(served, outputs=[{"name": "labels"}]).status_code == 404
    assert infer(served, outputs=[{"name": "label"}, {"name": "label"}]).status_code == 400


def test_tensors_in_binary_are_answered_in_binary(served: TestClient) -> None:
    raw = {
        "age": ("FP64", np.array([41.5]).tobytes()),
        "visits": ("INT64", np.array([3]).tobytes()),
        "trial": ("BOOL", b"\0"),
        "plan": ("BYTES", b"\3\0\0\0pro"),
    }
    inputs = [
        {
            "name": name,
            "datatype": datatype,
            "shape": [1, 1],
            "parameters": {"binary_data_size": len(data)},
        }
        for name, (datatype, data) in raw.items()
    ]
    head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    answer = served.post(
        "/v2/models/churn/infer",
        content=head + b"".join(data for _, data in raw.values()),
        headers={"content-type": "application/octet-stream", HEADER: str(len(head))},
    )
    assert answer.status_code == 200, answer.text
    length = int(answer.headers[HEADER])
    told, tail = json.loads(answer.content[:length]), answer.content[length:]
    sizes = [each["parameters"]["binary_data_size"] for each in told["outputs"]]
    assert sum(sizes) == len(tail)
    found = np.frombuffer(tail[sizes[0] :], "<f4")
    np.testing.assert_allclose(found, expected([ROW], classifier(0))[0], atol=1e-5)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/json", "content-encoding": "gzip"}, 415),
        ({"content-type": "application/octet-stream"}, 415),
        ({"content-type": "application/octet-stream", HEADER: "many"}, 400),
        ({"content-type": "application/octet-stream", HEADER: "-1"}, 400),
        ({"content-type": "application/octet-stream", HEADER: "99999"}, 400),
        ({"content-type": "application/octet-stream", HEADER: "9" * 30}, 400),
        ({"content-type": "application/json", "x-ragstone-timeout-seconds": "soon"}, 400),
    ],
)
def test_wrong_headers_are_refused_as_the_protocol_says(
    served: TestClient, headers: dict[str, str], status: int
) -> None:
    body = json.dumps({"inputs": tensors([ROW])}).encode()
    answer = served.post("/v2/models/churn/infer", content=body, headers=headers)
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["error"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/models/chrun", 404),
        ("GET", "/v2/models/chrun/ready", 404),
        ("GET", "/v2/models/churn/versions/9", 404),
        ("POST", "/v2/models/chrun/infer", 404),
        ("POST", "/v2/models/churn/versions/9/infer", 404),
        ("POST", "/v2/models/churn%2F..%2Fx/infer", 404),
        ("GET", "/v2/models/churn/infer", 405),
        ("GET", "/v2/nothing", 404),
        ("POST", "/v2/repository/models/chrun/load", 404),
        ("POST", "/v2/repository/models/chrun/unload", 404),
    ],
)
def test_what_is_not_there_is_told_in_the_shape_of_the_protocol(
    served: TestClient, method: str, path: str, status: int
) -> None:
    body = {"inputs": tensors([ROW])} if path.endswith("infer") else {}
    answer = served.request(method, path, json=None if method == "GET" else body)
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["error"]


def test_index_lists_what_is_served(served: TestClient) -> None:
    found = served.post("/v2/repository/index", json={"ready": True}).json()
    assert {"name": "churn", "version": "1", "state": "READY", "reason": ""} in found
    assert {each["name"] for each in found} <= {"churn", "grade", "opaque", "price", "strict"}


def test_every_row_becomes_an_interaction_that_takes_a_label(served: TestClient) -> None:
    told = predict(served, rows=[ROW, {**ROW, "age": None}]).json()
    label = {"interaction_id": told["predictions"][1]["id"], "kind": "label", "value": "no"}
    assert served.post("/v1/feedback", json=label).status_code == 200
    components = served.app.state.components  # type: ignore[attr-defined]
    components.interactions.flush()
    item = components.interactions.get(told["predictions"][1]["id"])
    assert (item.kind, item.model, item.tag, item.outcome) == (
        "prediction",
        "model/churn",
        "live",
        "answered",
    )
    assert item.upstream == "churn@v1"
    assert item.content["prediction"] == told["predictions"][1]["prediction"]
    assert item.content["features"] == {**ROW, "age": None}


def test_predictions_are_counted(served: TestClient) -> None:
    predict(served, rows=[ROW, {**ROW, "plan": "gold"}])
    predict(served, rows=[])
    text = served.get("/metrics").text
    assert 'ragstone_prediction_rows_total{model="churn",version="1"}' in text
    assert 'ragstone_prediction_requests_total{model="churn",outcome="refused"}' in text
    kind = 'ragstone_prediction_warnings_total{kind="unknown_category",model="churn"}'
    assert kind in text
    assert "ragstone_models_loaded " in text


def test_linear_model_is_explained_exactly(served: TestClient) -> None:
    rows = classical_models.rows(10, seed=7)
    told = predict(served, rows=rows, explain=True).json()["predictions"]
    wanted = classifier(0).pipeline.decision_function(
        classical_models.frame_of(classical_models.columns_of(rows))
    )
    for each, score in zip(told, wanted, strict=True):
        found = each["explanation"]
        total = found["base"] + sum(found["contributions"].values())
        assert total == pytest.approx(found["score"]) == pytest.approx(score)
    assert "numbers__visits" in told[0]["explanation"]["contributions"]


def test_what_cannot_be_explained_is_refused_before_it_is_predicted(served: TestClient) -> None:
    assert predict(served, "opaque", explain=True).status_code == 400
    text = served.get("/metrics").text
    assert 'ragstone_prediction_requests_total{model="opaque",outcome="refused"}' in text
    assert 'ragstone_prediction_rows_total{model="opaque"' not in text


@pytest.fixture
def alone(fast_settings: Any, open_client: Any, tmp_path: Path) -> Callable[..., TestClient]:
    """Open an application of its own, with the classifier in it."""

    def open_(**sections: Any) -> TestClient:
        client: TestClient = open_client(fast_settings(**sections))
        put(store_of(client), classifier(0), tmp_path / "0")
        return client

    return open_


def test_promoted_version_answers_within_a_moment(
    alone: Callable[..., TestClient], tmp_path: Path
) -> None:
    client = alone(models={"watch_seconds": 0.02})
    assert predict(client).json()["model"] == "model/churn@v1"
    put(store_of(client), classifier(1), tmp_path / "1")
    deadline = time.monotonic() + 20
    while (told := predict(client).json())["model"] == "model/churn@v1":
        assert time.monotonic() < deadline
    assert told["model"] == "model/churn@v2"


def test_unloaded_model_is_gone_until_it_is_loaded(alone: Callable[..., TestClient]) -> None:
    client = alone()
    assert infer(client).status_code == 200
    assert client.post("/v2/repository/models/churn/unload").status_code == 200
    assert infer(client).status_code == 404
    assert predict(client, "churn@v1").status_code == 404
    body = {"parameters": {"config": "{}"}}
    assert client.post("/v2/repository/models/churn/load", json=body).status_code == 400
    assert client.post("/v2/repository/models/churn/load", json={}).status_code == 200
    assert infer(client).status_code == 200


def test_keys_open_their_models_alone(
    alone: Callable[..., TestClient],
) -> None:
    client = alone(server={"authentication": "on"}, models={"watch_seconds": 0.05})
    components = client.app.state.components  # type: ignore[attr-defined]

    def headers(**opens: Any) -> dict[str, str]:
        name = f"key{len(components.keys.list())}"
        _, key = components.keys.create(name, opens=Opens(**opens))
        return {"authorization": f"Bearer {key}"}

    assert client.get("/v2/health/live").status_code == 200
    assert infer(client).status_code == 401
    assert list(infer(client).json()) == ["error"]
    body = {"inputs": tensors([ROW])}
    path = "/v2/models/churn/infer"
    asking = headers(scopes=("models",), tenant="acme")
    assert client.post(path, json=body, headers=asking).status_code == 200
    load = "/v2/repository/models/churn/load"
    assert client.post(load, headers=asking).status_code == 403
    assert client.post(load, headers=headers(scopes=("admin",))).status_code == 200
    assert client.post(path, json=body, headers=headers(scopes=("read",))).status_code == 403
    other = headers(scopes=("models",), models=("model/other",))
    assert client.post(path, json=body, headers=other).status_code == 404
    assert client.post("/v2/repository/index", headers=other).json() == []
    rare = headers(scopes=("models",), limits=Limits(requests_per_minute=1))
    statuses = [client.post(path, json=body, headers=rare).status_code for _ in range(3)]
    assert statuses[0] == 200
    assert 429 in statuses


def test_request_that_takes_too_long_ends_at_its_deadline(
    alone: Callable[..., TestClient],
) -> None:
    client = alone()
    assert infer(client).status_code == 200
    answer = client.post(
        "/v1/predict",
        json={"model": "churn", "rows": [ROW] * 200},
        headers={"x-ragstone-timeout-seconds": "0.000001"},
    )
    assert answer.status_code == 504

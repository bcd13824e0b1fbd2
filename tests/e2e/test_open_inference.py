"""The Open Inference Protocol by its own client, Triton's, against a real server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import classical_models
from infra.artifacts.store import open_store
from infra.database.engine import Database
from migrated import put_schema
from running_server import start
from waiting import until

triton = pytest.importorskip(
    "tritonclient.http", reason="tritonclient is not installed: pip install 'tritonclient[http]'"
)
DATATYPES = {"age": "FP64", "visits": "INT64", "trial": "BOOL", "plan": "BYTES"}
NUMPY: dict[str, Any] = {
    "age": np.float64,
    "visits": np.int64,
    "trial": np.bool_,
    "plan": np.object_,
}
ROWS = classical_models.rows(12, seed=4)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("triton")
    put_schema(folder / "data" / "ragstone.db")
    database = Database(f"sqlite:///{folder / 'data' / 'ragstone.db'}")
    store = open_store(folder / "data" / "artifacts", database)
    for seed in (0, 1):
        made = classical_models.classifier(seed)
        classical_models.put(
            store, made, folder / str(seed), alias="production" if not seed else None
        )
    database.close()
    running = start(folder)
    try:
        running.wait_until_ready()
        with triton.InferenceServerClient(running.url.removeprefix("http://")) as client:
            until(client.is_server_ready, seconds=60)
            yield client
    finally:
        running.stop()


def inputs(*, binary: bool) -> list[Any]:
    made = []
    for name, datatype in DATATYPES.items():
        values = [row[name] for row in ROWS]
        missing: Any = np.nan if name == "age" else ""
        array = np.array([missing if value is None else value for value in values], NUMPY[name])
        tensor = triton.InferInput(name, [len(ROWS), 1], datatype)
        if not binary and name == "age":  # JSON has no NaN, and the client no null
            array = np.nan_to_num(array, nan=40.0)
        tensor.set_data_from_numpy(array.reshape(-1, 1), binary_data=binary)
        made.append(tensor)
    return made


def wanted(*, seed: int = 0, filled: bool = False) -> Any:
    rows = [{**row, "age": 40.0 if filled and row["age"] is None else row["age"]} for row in ROWS]
    frame = classical_models.frame_of(classical_models.columns_of(rows))
    return classical_models.classifier(seed).pipeline.predict_proba(frame)


def test_server_and_model_are_described(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("churn")
    assert client.is_model_ready("churn", "2")
    assert not client.is_model_ready("chrun")
    assert client.get_server_metadata()["name"] == "ragstone"
    described = client.get_model_metadata("churn")
    assert {each["name"]: each["datatype"] for each in described["inputs"]} == DATATYPES
    assert client.get_model_repository_index()[0]["state"] == "READY"


@pytest.mark.parametrize("binary", [True, False])
def test_tensors_are_answered(client: Any, binary: bool) -> None:
    outputs = [
        triton.InferRequestedOutput(name, binary_data=binary) for name in ("label", "probabilities")
    ]
    given = inputs(binary=binary)
    answer = client.infer("churn", given, outputs=outputs, request_id="seven")
    found = answer.as_numpy("probabilities")
    np.testing.assert_allclose(found, wanted(filled=not binary), atol=1e-5)
    labels = [
        each.decode() if isinstance(each, bytes) else each for each in answer.as_numpy("label")
    ]
    assert labels == ["yes" if row[1] >= 0.5 else "no" for row in found]
    assert answer.get_response()["id"] == "seven"


def test_outputs_that_are_not_named_come_in_binary(client: Any) -> None:
    answer = client.infer("churn", inputs(binary=True), model_version="2")
    assert answer.get_response()["model_version"] == "2"
    found = answer.as_numpy("probabilities")
    np.testing.assert_allclose(found, wanted(seed=1), atol=1e-5)


def test_wrong_requests_raise_what_the_client_knows(client: Any) -> None:
    from tritonclient.utils import InferenceServerException

    with pytest.raises(InferenceServerException, match="chrun"):
        client.infer("chrun", inputs(binary=True))
    with pytest.raises(InferenceServerException, match="plan"):
        client.infer("churn", inputs(binary=True)[:-1])
    strange = triton.InferInput("plan", [1, 1], "FP32")
    strange.set_data_from_numpy(np.zeros((1, 1), np.float32))
    with pytest.raises(InferenceServerException, match="datatype"):
        client.infer("churn", [strange])


def test_model_is_unloaded_and_loaded(client: Any) -> None:
    client.unload_model("churn")
    assert not client.is_model_ready("churn")
    client.load_model("churn")
    assert client.is_model_ready("churn")

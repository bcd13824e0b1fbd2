"""The Open Inference Protocol by its own clients, Triton's and KServe's, against a real server."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
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


KSERVE = Path(__file__).parent.parent.parent / ".venvs" / "kserve" / "bin" / "python"
KSERVE_CLIENT = Path(__file__).parent / "kserve_client.py"
KSERVE_ABSENT = (
    "KServe's SDK needs other versions than ours, so an environment of its own: "
    "uv venv .venvs/kserve && uv pip install --python .venvs/kserve -r tests/e2e/kserve.txt"
)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("open-inference")
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
        yield running.url
    finally:
        running.stop()


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[Any]:
    with triton.InferenceServerClient(url.removeprefix("http://")) as client:
        until(client.is_server_ready, seconds=60)
        yield client


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


@pytest.mark.skipif(not KSERVE.exists(), reason=KSERVE_ABSENT)
@pytest.mark.usefixtures("client")
def test_kserves_sdk_is_answered(url: str) -> None:
    filled = [{**row, "age": row["age"] or 40.0, "plan": row["plan"] or ""} for row in ROWS]
    columns = {
        name: (datatype, [row[name] for row in filled]) for name, datatype in DATATYPES.items()
    }
    done = subprocess.run(
        [KSERVE, KSERVE_CLIENT, url], input=json.dumps(columns), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert (told["live"], told["ready"], told["model"]) == (True, True, True)
    for form in ("binary", "json"):
        found = told[form]
        assert found["id"] == "seven"
        np.testing.assert_allclose(found["probabilities"], wanted(filled=True), atol=1e-5)
        assert found["labels"] == [
            "yes" if row[1] >= 0.5 else "no" for row in found["probabilities"]
        ]
    status, words = told["refused"]
    assert status == 404
    assert "chrun" in words


def test_model_is_unloaded_and_loaded(client: Any) -> None:
    client.unload_model("churn")
    assert not client.is_model_ready("churn")
    client.load_model("churn")
    assert client.is_model_ready("churn")

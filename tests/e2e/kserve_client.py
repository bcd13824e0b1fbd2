"""Asks a server as KServe's SDK does, in an environment of its own; prints what it was told."""

import asyncio
import json
import sys
from typing import Any

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig  # type: ignore[import-not-found]

NUMPY: dict[str, Any] = {
    "FP64": np.float64,
    "INT64": np.int64,
    "BOOL": np.bool_,
    "BYTES": np.object_,
}


def inputs(columns: dict[str, Any], *, is_binary: bool) -> list[Any]:
    made = []
    for name, (datatype, values) in columns.items():
        tensor = InferInput(name, [len(values), 1], datatype)
        array = np.array(values, NUMPY[datatype]).reshape(-1, 1)
        tensor.set_data_from_numpy(array, binary_data=is_binary)
        made.append(tensor)
    return made


async def ask(url: str, columns: dict[str, Any]) -> dict[str, Any]:
    client = InferenceRESTClient(RESTConfig(protocol="v2", retries=0))
    told: dict[str, Any] = {
        "live": await client.is_server_live(url),
        "ready": await client.is_server_ready(url),
        "model": await client.is_model_ready(url, "churn"),
    }
    for is_binary in (True, False):
        request = InferRequest("churn", inputs(columns, is_binary=is_binary), request_id="seven")
        answer = await client.infer(url, request, model_name="churn")
        outputs = {each.name: each.as_numpy() for each in answer.outputs}
        labels = outputs["label"].ravel().tolist()
        told["binary" if is_binary else "json"] = {
            "id": answer.id,
            "labels": [each.decode() if isinstance(each, bytes) else each for each in labels],
            "probabilities": outputs["probabilities"].tolist(),
        }
    try:
        await client.infer(url, InferRequest("chrun", inputs(columns, is_binary=True)), "chrun")
    except httpx.HTTPStatusError as error:
        told["refused"] = [error.response.status_code, error.response.json()["error"]]
    await client.close()
    return told


if __name__ == "__main__":
    print(json.dumps(asyncio.run(ask(sys.argv[1], json.load(sys.stdin)))))

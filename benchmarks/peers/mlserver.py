"""MLServer with the same graph in ONNX Runtime: a model of its own, as its documentation shows."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from mlserver import MLModel  # type: ignore[import-not-found]
from mlserver.codecs import (  # type: ignore[import-not-found]
    NumpyCodec,
    StringCodec,
)
from mlserver.types import (  # type: ignore[import-not-found]
    InferenceRequest,
    InferenceResponse,
)


class Graph(MLModel):  # type: ignore[misc]
    """A graph with an input for each column."""

    async def load(self) -> bool:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(self.settings.parameters.uri, options)
        self._types = {each.name: each.type for each in self._session.get_inputs()}
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        feed = {}
        for each in payload.inputs:
            if each.datatype == "BYTES":
                values = np.array(StringCodec.decode_input(each), dtype=object).reshape(-1, 1)
            else:
                values = NumpyCodec.decode_input(each).astype(np.float32).reshape(-1, 1)
            feed[each.name] = values
        label, probabilities = self._session.run(["label", "probabilities"], feed)
        return InferenceResponse(
            model_name=self.name,
            outputs=[
                StringCodec.encode_output("label", label.tolist()),
                NumpyCodec.encode_output("probabilities", probabilities),
            ],
        )


def write_settings(folder: Path, graph: str, port: int) -> None:
    """Write what `mlserver start FOLDER` reads: one process, no workers, no metrics of others."""
    server: dict[str, Any] = {
        "host": "127.0.0.1",
        "http_port": port,
        "grpc_port": port + 1,
        "metrics_port": port + 2,
        "parallel_workers": 0,
        "debug": False,
    }
    model = {
        "name": "income",
        "implementation": "benchmarks.peers.mlserver.Graph",
        "parameters": {"uri": graph},
    }
    (folder / "settings.json").write_text(json.dumps(server), encoding="utf-8")
    (folder / "model-settings.json").write_text(json.dumps(model), encoding="utf-8")


if __name__ == "__main__":
    write_settings(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))

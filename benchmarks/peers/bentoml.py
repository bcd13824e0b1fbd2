"""BentoML with the same graph in ONNX Runtime: rows in, predictions out, batched by itself."""

from __future__ import annotations

import os
from typing import Any

import bentoml  # type: ignore[import-not-found]
import numpy as np
import onnxruntime


@bentoml.service(workers=1)
class Income:
    """A graph with an input for each column; its path comes by a variable."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(os.environ["BENCHMARK_GRAPH"], options)
        self._types = {each.name: each.type for each in self._session.get_inputs()}

    @bentoml.api(batchable=True, max_batch_size=1024)  # type: ignore[untyped-decorator]
    def predict(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        feed = {}
        for name, kind in self._types.items():
            values = np.array([row[name] for row in rows], dtype=object).reshape(-1, 1)
            feed[name] = values if kind == "tensor(string)" else values.astype(np.float32)
        label, probabilities = self._session.run(["label", "probabilities"], feed)
        return [
            {"prediction": one, "probabilities": other}
            for one, other in zip(label.tolist(), probabilities.tolist(), strict=True)
        ]

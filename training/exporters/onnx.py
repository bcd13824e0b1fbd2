"""ONNX, for ONNX Runtime: whole rows in, logits of every token out, without a cache of keys."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.plugins import require
from training.exporters._writing import writing
from training.parity import Logits, Row

FILE = "model.onnx"
SAMPLE = (2, 8)
"""Rows and tokens that the model is traced with; both are free in what is written."""


class _Onnx:
    max_difference = 1e-3

    def write(self, model: Any, folder: Path) -> None:
        for package in ("onnx", "onnxscript"):
            require(package, extra="export")
        torch = require("torch", extra="finetune")
        ids = torch.zeros(SAMPLE, dtype=torch.long)
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}
        with writing("ONNX"):
            exporters = require("transformers.exporters.exporter_onnx", extra="finetune")
            config = exporters.OnnxConfig(dynamic=True, output_path=str(folder / FILE))
            exporters.OnnxExporter().export(model, inputs, config=config)

    def open(self, folder: Path) -> Logits:
        runtime = require("onnxruntime", extra="export")
        session = runtime.InferenceSession(str(folder / FILE), providers=["CPUExecutionProvider"])
        known = {each.name for each in session.get_inputs()}

        def logits(rows: Sequence[Row]) -> list[NDArray[np.float32]]:
            return [self._ask(session, known, row) for row in rows]

        return logits

    def _ask(self, session: Any, known: set[str], row: Row) -> NDArray[np.float32]:
        ids = np.array([row], np.int64)
        given = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        taken = {name: value for name, value in given.items() if name in known}
        found: NDArray[np.float32] = session.run(["logits"], taken)[0][0]
        return found


def build() -> _Onnx:
    return _Onnx()

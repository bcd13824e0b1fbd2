"""ExecuTorch, for phones and small devices: one row in, logits out, computed by XNNPACK on CPUs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.errors import InvalidConfiguration, MissingDependency
from infra.plugins import require
from training.exporters._writing import quietly, writing
from training.parity import Logits, Row

FILE = "model.pte"
SAMPLE_TOKENS = 8
"""Of the row that the model is traced with; how many there are is free in what is written."""


class _Executorch:
    max_difference = 1e-3

    def write(self, model: Any, folder: Path) -> None:
        torch = require("torch", extra="finetune")
        inputs = {"input_ids": torch.zeros((1, SAMPLE_TOKENS), dtype=torch.long)}
        with writing("ExecuTorch"):
            _require("executorch.exir")
            exporters = require("transformers.exporters.exporter_executorch", extra="finetune")
            config = exporters.ExecutorchConfig(dynamic=True)
            asked = {**inputs, "use_cache": False}
            made = exporters.ExecutorchExporter().export(model, asked, config=config)
            with (folder / FILE).open("wb") as file:
                made.write_to_file(file)

    def open(self, folder: Path) -> Logits:
        with quietly():
            runtime = _require("executorch.runtime")
        torch = require("torch", extra="finetune")
        program = runtime.Runtime.get().load_program(str(folder / FILE))
        method = program.load_method("forward")

        def logits(rows: Sequence[Row]) -> list[NDArray[np.float32]]:
            return [method.execute([torch.tensor([list(row)])])[0][0].numpy() for row in rows]

        return logits


def _require(module: str) -> ModuleType:
    """Import a part of ExecuTorch, which is in no extra: it brings fourteen other packages.

    Raises:
        InvalidConfiguration: it is not installed; says how to.
    """
    try:
        return require(module, extra="export")
    except MissingDependency:
        raise InvalidConfiguration(
            "ExecuTorch is not installed, and no extra has it; run: pip install executorch"
        ) from None


def build() -> _Executorch:
    return _Executorch()

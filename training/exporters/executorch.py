"""ExecuTorch, for small devices: one row in, logits out, by XNNPACK; with a cache that it holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.errors import InvalidConfiguration, MissingDependency
from infra.plugins import require
from training.exporters import _caches
from training.exporters._writing import quietly, writing
from training.parity import Logits, Row

FILE = "model.pte"
SAMPLE_TOKENS = 8
"""Of the row that the model is traced with; how many there are is free in what is written."""
AT_ONCE = 128
"""Tokens that are read at once with a cache: memory for the logits of so many is set aside."""
CACHE_TOKENS = 2048
"""That the cache has room for, or as many as the model was made for."""


class _Executorch:
    max_difference = 1e-3

    def write(self, model: Any, folder: Path, *, cache: bool) -> None:
        if cache:
            _caches.check(model, _caches.WHOLE)
        with writing("ExecuTorch"):
            _require("executorch.exir")
            exporters = require("transformers.exporters.exporter_executorch", extra="finetune")
            if cache:
                module, inputs, free = _with_cache(model)
                config = exporters.ExecutorchConfig(dynamic=True, dynamic_shapes=free, strict=True)
            else:
                module, inputs = model, {**_whole(), "use_cache": False}
                config = exporters.ExecutorchConfig(dynamic=True)
            made = exporters.ExecutorchExporter().export(module, inputs, config=config)
            with (folder / FILE).open("wb") as file:
                made.write_to_file(file)

    def open(self, folder: Path) -> Logits:
        with quietly():
            runtime = _require("executorch.runtime")
        torch = require("torch", extra="finetune")
        program = runtime.Runtime.get().load_program(str(folder / FILE))
        method = program.load_method("forward")
        if method.metadata.num_inputs() > 1:
            return _caches.Reader(lambda new, kept: _read(method, new, kept or 0))

        def logits(rows: Sequence[Row]) -> list[NDArray[np.float32]]:
            return [method.execute([torch.tensor([list(row)])])[0][0].numpy() for row in rows]

        return logits


def _whole() -> dict[str, Any]:
    torch = require("torch", extra="finetune")
    return {"input_ids": torch.zeros((1, SAMPLE_TOKENS), dtype=torch.long)}


def _with_cache(model: Any) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """Return a model that holds its cache, what it is traced with, and which sizes are free."""
    torch = require("torch", extra="finetune")
    holding = require("transformers.integrations.executorch", extra="finetune")
    positions = model.config.get_text_config().max_position_embeddings
    room = min(CACHE_TOKENS, positions)
    model.generation_config.update(cache_implementation="static", use_cache=True)
    module = holding.TorchExportableModuleWithStaticCache(model, batch_size=1, max_cache_len=room)
    tokens = torch.export.Dim("tokens", min=1, max=min(AT_ONCE, room - 1))
    inputs = {**_whole(), "cache_position": torch.arange(SAMPLE_TOKENS)}
    return module.eval(), inputs, {"input_ids": {1: tokens}, "cache_position": {0: tokens}}


def _read(method: Any, new: Row, kept: int) -> tuple[NDArray[np.float32], int]:
    """Read tokens; what is kept is in the program, and only where it ends is told."""
    torch = require("torch", extra="finetune")
    found = []
    for start in range(0, len(new), AT_ONCE):
        ids = torch.tensor([list(new[start : start + AT_ONCE])])
        places = torch.arange(kept + start, kept + start + ids.shape[1])
        found.append(method.execute([ids, places])[0][0].numpy().copy())
    return np.concatenate(found), kept + len(new)


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

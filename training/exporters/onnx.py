"""ONNX, for ONNX Runtime: rows in, logits of every token out, and keys and values with a cache."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.plugins import require
from training.exporters import _caches
from training.exporters._writing import writing
from training.parity import Logits, Row

FILE = "model.onnx"
SAMPLE = (2, 8)
"""Rows and tokens that the model is traced with; both are free in what is written."""
SAMPLE_PAST = 3
"""Tokens before those, with a cache; none at all is as good in what is written."""
PAST = "past_key_values"
_HELD = re.compile(r"(input|output)\.past_key_values\.layers\.(\d+)\.(key|value)s")
_SIDES = {"input": PAST, "output": "present"}
"""As programs for language models in ONNX call what they give back and get."""


class _Onnx:
    max_difference = 1e-3

    def write(self, model: Any, folder: Path, *, cache: bool) -> None:
        for package in ("onnx", "onnxscript"):
            require(package, extra="export")
        if cache:
            _caches.check(model, _caches.WHOLE, _caches.WINDOW)
        with writing("ONNX"):
            exporters = require("transformers.exporters.exporter_onnx", extra="finetune")
            inputs, shapes = _with_cache(model) if cache else (_whole(), None)
            config = exporters.OnnxConfig(dynamic=True, dynamic_shapes=shapes)
            program = exporters.OnnxExporter().export(model, inputs, config=config)
            _rename(program.model.graph)
            program.save(str(folder / FILE), external_data=True)

    def open(self, folder: Path) -> Logits:
        runtime = require("onnxruntime", extra="export")
        session = runtime.InferenceSession(str(folder / FILE), providers=["CPUExecutionProvider"])
        asked = _Asked(session)
        return _caches.Reader(asked.read) if asked.past else asked.whole


class _Asked:
    """A session, asked for one row at a time."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._known = {each.name for each in session.get_inputs()}
        self.past = {
            each.name: (1, each.shape[1], 0, each.shape[3])
            for each in session.get_inputs()
            if each.name.startswith(PAST)
        }
        self._outputs = ["logits", *(name.replace(PAST, "present") for name in self.past)]

    def whole(self, rows: Sequence[Row]) -> list[NDArray[np.float32]]:
        return [self.read(row, None)[0] for row in rows]

    def read(self, new: Row, kept: Any) -> tuple[NDArray[np.float32], Any]:
        if kept is None:
            kept = [np.zeros(shape, np.float32) for shape in self.past.values()]
        before = kept[0].shape[2] if kept else 0
        after = before + len(new)
        given = {
            "input_ids": np.array([new], np.int64),
            "attention_mask": np.ones((1, after), np.int64),
            "position_ids": np.arange(before, after)[None],
            **dict(zip(self.past, kept, strict=True)),
        }
        taken = {name: value for name, value in given.items() if name in self._known}
        logits, *kept = self._session.run(self._outputs, taken)
        return logits[0], kept


def _whole() -> dict[str, Any]:
    torch = require("torch", extra="finetune")
    ids = torch.zeros(SAMPLE, dtype=torch.long)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}


def _with_cache(model: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what the model is traced with, and which sizes of it are free."""
    torch = require("torch", extra="finetune")
    transformers = require("transformers", extra="finetune")
    rows, tokens = SAMPLE
    # Windows are left to the mask: a cache that forgets by itself could not begin empty.
    cache = transformers.DynamicCache()
    before = torch.zeros((rows, SAMPLE_PAST), dtype=torch.long)
    with torch.no_grad():
        model(input_ids=before, past_key_values=cache, use_cache=True)
    after = SAMPLE_PAST + tokens
    inputs = {
        "input_ids": torch.zeros(SAMPLE, dtype=torch.long),
        "attention_mask": torch.ones((rows, after), dtype=torch.long),
        "position_ids": torch.arange(SAMPLE_PAST, after).repeat(rows, 1),
        "past_key_values": cache,
    }
    if "position_ids" not in inspect.signature(model.forward).parameters:
        del inputs["position_ids"]  # it counts what the mask shows
    free = torch.export.Dim.AUTO
    shapes: dict[str, Any] = {name: {0: free, 1: free} for name in inputs}
    shapes["past_key_values"] = [{0: free, 2: free}] * (2 * len(cache.layers))
    return {**inputs, "use_cache": True}, shapes


def _rename(graph: Any) -> None:
    for value in (*graph.inputs, *graph.outputs):
        if found := _HELD.fullmatch(value.name):
            side, layer, what = found.groups()
            value.name = f"{_SIDES[side]}.{layer}.{what}"


def build() -> _Onnx:
    return _Onnx()

"""Models as ONNX graphs, features and estimator in one, run by ONNX Runtime."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.classical import ModelFile
from infra.classical_rows import is_text
from infra.errors import EngineFailed, InvalidRequest, first_line
from infra.plugins import require
from service.runtimes import EXTRA, Columns, Limits, _files

PROBABILITIES = "probabilities"
PREDICTION = "prediction"
_TYPES: dict[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(string)": np.object_,
}
_PLACE = re.compile(r"^\[ONNXRuntimeError\].{0,40}/onnxruntime_src/\S+ .*?\) (?=[A-Z])")
"""Where in its own sources an error is from, before what it says."""
_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml"})
"""Of operators; others would be somebody's own code."""


class OnnxRuntime:
    """One session, whose graph has an input for each raw column."""

    name = "onnx"

    def __init__(self, model: ModelFile, session: Any, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self._session = session
        self._types = {each.name: _TYPES[each.type] for each in session.get_inputs()}
        self._wanted = [PROBABILITIES if model.classes else PREDICTION]
        self._width = len(model.classes or ())

    def run(self, columns: Columns) -> NDArray[Any]:
        with np.errstate(over="ignore"):  # what is beyond float32 is infinite to the graph
            feed = {
                name: columns[name].astype(kind, copy=False).reshape(-1, 1)
                for name, kind in self._types.items()
            }
        try:
            found: NDArray[Any] = self._session.run(self._wanted, feed)[0]
        except Exception as error:  # its exceptions have no class of their own in common
            raise EngineFailed(
                f"The model cannot be run on these rows: {first_line(error)}"
            ) from error
        rows = len(next(iter(columns.values())))
        shape = (rows, self._width) if self._width else (rows,)
        if found.size != math.prod(shape):
            raise EngineFailed(f"The graph answers numbers of shape {found.shape}, not {shape}")
        return found.reshape(shape)


def build(model: ModelFile, data: bytes, limits: Limits) -> OnnxRuntime:
    """Load a graph and hold it against the columns and classes that the artifact names."""
    _files.check(data, wanted="other", shown="an ONNX model", max_bytes=limits.max_bytes)
    _check_graph(data)
    library = require("onnxruntime", extra=EXTRA)
    options = library.SessionOptions()
    # Requests are answered side by side; a thread pool for each model would only be in the way.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = library.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # as above
        said = _PLACE.sub("", str(error)).partition("\n")[0][:300]
        raise InvalidRequest(f"ONNX Runtime does not load the model: {said}") from error
    _check_inputs(model, session)
    _check_outputs(model, session)
    return OnnxRuntime(model, session, len(data))


def _check_graph(data: bytes) -> None:
    """Refuse what reaches outside of the file: tensors in other files, operators of others."""
    onnx = require("onnx", extra=EXTRA)
    message = require("google.protobuf.message", extra=EXTRA)
    try:
        found = onnx.load_model_from_string(data)
    except (message.DecodeError, ValueError, RecursionError) as error:
        raise InvalidRequest(
            "The file says to be an ONNX model, and cannot be read as one"
        ) from error
    if not found.graph.node or not found.opset_import:
        raise InvalidRequest("The file says to be an ONNX model, and holds no graph")
    strange = {each.domain for each in found.opset_import} - _DOMAINS
    if strange or found.functions:
        raise InvalidRequest(
            f"The model has operators of its own ({', '.join(sorted(strange)) or 'functions'}); "
            "only those of ONNX are run"
        )
    if any(tensor.external_data or tensor.data_location for tensor in _tensors(found.graph)):
        raise InvalidRequest("The model keeps weights in other files; export it as one file")


def _tensors(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from attribute.tensors
            if attribute.HasField("t"):
                yield attribute.t
            if attribute.HasField("g"):
                yield from _tensors(attribute.g)
            for each in attribute.graphs:
                yield from _tensors(each)


def _check_inputs(model: ModelFile, session: Any) -> None:
    types = {each.name: each.type for each in session.get_inputs()}
    names = {each.name for each in model.inputs}
    if types.keys() != names:
        raise InvalidRequest(
            f"The graph's inputs {sorted(types)!r} are not the model's columns {sorted(names)!r}"
        )
    for column in model.inputs:
        found = types[column.name]
        if found not in _TYPES or is_text(column) != (found == "tensor(string)"):
            raise InvalidRequest(
                f"Input {column.name!r} of the graph takes {found}, and is given "
                f"{'texts' if is_text(column) else 'numbers'}"
            )


def _check_outputs(model: ModelFile, session: Any) -> None:
    outputs = {each.name: each for each in session.get_outputs()}
    wanted = PROBABILITIES if model.classes else PREDICTION
    if wanted not in outputs:
        raise InvalidRequest(f"The graph has no output {wanted!r}, but {sorted(outputs)!r}")
    if outputs[wanted].type not in {"tensor(float)", "tensor(double)"}:
        raise InvalidRequest(f"Output {wanted!r} of the graph is {outputs[wanted].type}")
    width = outputs[wanted].shape[-1:]
    if model.classes and width and isinstance(width[0], int) and width[0] != len(model.classes):
        raise InvalidRequest(
            f"The graph gives {width[0]} probabilities, and the model has {len(model.classes)} "
            "classes"
        )

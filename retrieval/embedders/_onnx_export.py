"""Turns a model folder into files for ONNX Runtime, in the precision that is asked for."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from infra.errors import InvalidConfiguration
from infra.plugins import require
from retrieval.embedders import _onnx_torch
from retrieval.embedders._model_folder import EXTRA, ModelFolder
from retrieval.embedders._onnx_graph import (
    FUSED,
    WEIGHTS,
    Dense,
    Graph,
    UnknownArchitecture,
    describe,
    read_weights,
    write_encoder,
)
from retrieval.embedders._onnx_runner import Runner

logger = logging.getLogger(__name__)

Precision: TypeAlias = Literal["int8", "float32"]

FORMAT = 2
"""Raised when the files of the cache are written differently; their vectors may stay the same."""
SCHEMES: dict[Precision, str] = {"float32": "float32", "int8": "int8-channel-1"}
"""What a precision means; part of an embedder's identity, and raised when vectors change."""
GRAPH, DATA = "model.onnx", "weights.bin"
LEAST_COSINE = 0.98
"""Of an int8 vector to the exact one; the packaged model reaches 0.99."""
SAMPLES = (
    "How thick are the walls of the tower?",
    "The gate was rebuilt in 1834, after the fire, and has been closed to carriages since.",
    "error 0x80070057: the parameter --max-tokens must be an integer between 1 and 8192",
    "In mice that lack the receptor, insulin no longer lowers the glucose level in blood.",
    "Either party may end this agreement by written notice of thirty days. " * 6,
    "Wie hoch ist die Gebühr für ein verlorenes Buch?",
    "图书馆每天早上九点开门。",
    "x",
)
LARGEST_INT8 = 127
"""Symmetric: -128 is left out, so that a weight and its negative are rounded alike."""


def export(folder: ModelFolder, precision: Precision, target: Path) -> None:
    """Write `model.onnx` and `weights.bin` to the folder `target`.

    Raises:
        InvalidConfiguration: the model loses too much in the precision, or is not whole.
        MissingDependency: a package for the export is not installed.
    """
    exact = target / "exact"
    exact.mkdir()
    try:
        encoder = describe(folder)
        weights = read_weights(folder.path / WEIGHTS)
        dimension = len(weights["embeddings.LayerNorm.weight"])
        for projection, place in ((_float32, exact), (_int8, target)):
            graph = write_encoder(encoder, weights, projection=projection)
            _save(graph.model(dimension=dimension), place)
            if precision == "float32":
                break
    except UnknownArchitecture as reason:
        logger.warning(
            "the graph of %s is exported with torch, once: it has %s", folder.path, reason
        )
        _onnx_torch.export(folder, exact / GRAPH)
        if precision != "float32":
            _quantize(exact / GRAPH, target / GRAPH)
    if precision == "float32":
        for path in exact.iterdir():
            path.rename(target / path.name)
    else:
        _compare(folder, exact / GRAPH, target / GRAPH)
    shutil.rmtree(exact)


def _compare(folder: ModelFolder, exact: Path, coarse: Path) -> None:
    """Refuse a precision in which a model says something else."""
    tokenizer = folder.tokenizer(max_tokens=folder.max_tokens())
    left, right = (Runner(graph, tokenizer) for graph in (exact, coarse))
    least = min(float(left.run(text) @ right.run(text)) for text in SAMPLES)
    if least < LEAST_COSINE:
        raise InvalidConfiguration(
            f"{str(folder.path)!r} loses too much in int8: a vector has the cosine {least:.3f} to "
            "the exact one; set precision = 'float32' in retrieval.embedder_options"
        )


def _quantize(exact: Path, target: Path) -> None:
    quantization = require("onnxruntime.quantization", extra=EXTRA)
    quantization.quantize_dynamic(
        exact,
        target,
        op_types_to_quantize=["MatMul", "Gemm"],
        per_channel=True,
        weight_type=quantization.QuantType.QInt8,
        use_external_data_format=True,
    )


def _save(model: Any, target: Path) -> None:
    require("onnx", extra=EXTRA).save_model(
        model, target / GRAPH, save_as_external_data=True, location=DATA, size_threshold=1024
    )


def _float32(graph: Graph, value: str, dense: Dense) -> str:
    weight = graph.constant(f"{dense.name}.weight", dense.weight.T)
    product = graph.add("MatMul", value, weight, name=f"{dense.name}.product")
    bias = graph.constant(f"{dense.name}.bias", dense.bias)
    return graph.add("Add", product, bias, name=dense.name)


def _int8(graph: Graph, value: str, dense: Dense) -> str:
    """Weights with a scale per output channel; what is multiplied gets its scale at run time."""
    weight, scales = quantize(dense.weight)
    return graph.add(
        "DynamicQuantizeMatMul",
        value,
        graph.constant(f"{dense.name}.weight", weight.T),
        graph.constant(f"{dense.name}.scales", scales),
        "",
        graph.constant(f"{dense.name}.bias", dense.bias),
        name=dense.name,
        domain=FUSED,
    )


def quantize(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Round `(out, in)` weights to int8 with one scale per output, symmetrically."""
    scales = np.abs(weight).max(axis=1) / LARGEST_INT8
    scales[scales < np.finfo(np.float32).tiny] = 1  # such small numbers are not exact
    return np.rint(weight / scales[:, None]).astype(np.int8), scales.astype(np.float32)

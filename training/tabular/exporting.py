"""Writes a trained pipeline as an ONNX graph and as skops, neither of which runs code."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from infra import classical_pipelines
from infra.classical import Column
from infra.classical_types import is_reviewed
from infra.errors import InvalidRequest, NotFound, first_line
from infra.plugins import require
from training.tabular import graph_features, graph_models
from training.tabular.graph_models import NoGraph
from training.tabular.pipelines import FEATURES, MODEL

EXTRA = "classical"
ONNX, SKOPS = "model.onnx", "model.skops"
OPSETS = {"": 18, "ai.onnx.ml": 3}
IR_VERSION = 9
FLOATS = "features_in_float32"
MAX_BYTES = 2**31
"""Of a pipeline that is read back; the service has a limit of its own."""


def to_onnx(pipeline: Any, columns: Sequence[Column], path: Path) -> None:
    """Write the whole pipeline as a graph, whose inputs are the encoded columns.

    Args:
        pipeline: trained, as `pipelines.build` makes it.
        columns: in their order; each becomes an input of shape (rows, 1).
        path: of the file.

    Raises:
        NoGraph: the estimator, or one of its options, has no counterpart in ONNX.
    """
    onnx, helper = (require(name, extra=EXTRA) for name in ("onnx", "onnx.helper"))
    nodes, inputs = graph_features.build(pipeline.named_steps[FEATURES], columns)
    model = pipeline.named_steps[MODEL]
    kinds = onnx.TensorProto
    outputs = [helper.make_tensor_value_info("prediction", kinds.FLOAT, [None, 1])]
    if hasattr(pipeline, "classes_"):
        text = isinstance(pipeline.classes_[0], str)
        width = len(pipeline.classes_)
        outputs = [
            helper.make_tensor_value_info("label", kinds.STRING if text else kinds.INT64, [None]),
            helper.make_tensor_value_info("probabilities", kinds.FLOAT, [None, width]),
        ]
    is_whole = graph_models.add(nodes, model)
    end = [helper.make_tensor_value_info(FLOATS, kinds.FLOAT, [None, None])]
    if not is_whole:
        nodes.add("Cast", graph_features.FEATURES, output=FLOATS, to=kinds.FLOAT)
    graph = _model(nodes, inputs, outputs if is_whole else end)
    if not is_whole:
        graph = _joined(graph, _converted(pipeline, model))
    _check(graph, model)
    path.write_bytes(graph.SerializeToString())


def features_to_onnx(pipeline: Any, columns: Sequence[Column], path: Path) -> None:
    """Write what makes the features alone as a graph, to look at them. Raises as `to_onnx` does."""
    onnx, helper = (require(name, extra=EXTRA) for name in ("onnx", "onnx.helper"))
    nodes, inputs = graph_features.build(pipeline.named_steps[FEATURES], columns)
    name, kind = graph_features.FEATURES, onnx.TensorProto.DOUBLE
    output = helper.make_tensor_value_info(name, kind, [None, None])
    path.write_bytes(_model(nodes, inputs, [output]).SerializeToString())


def _model(nodes: graph_features.Nodes, inputs: Any, outputs: Any) -> Any:
    helper = require("onnx.helper", extra=EXTRA)
    graph = helper.make_graph(nodes.nodes, "classical", inputs, outputs, nodes.constants)
    versions = [helper.make_opsetid(domain, number) for domain, number in OPSETS.items()]
    return helper.make_model(graph, opset_imports=versions, ir_version=IR_VERSION)


def _converted(pipeline: Any, model: Any) -> Any:
    """Return an estimator's graph from features in float32, which trees of scikit-learn read too.

    Raises:
        NoGraph: there is no converter for it.
    """
    skl2onnx = require("skl2onnx", extra=EXTRA)
    types = require("skl2onnx.common.data_types", extra=EXTRA)
    width = len(pipeline.named_steps[FEATURES].get_feature_names_out())
    classifies = hasattr(pipeline, "classes_")
    names = ("label", "probabilities") if classifies else ("prediction",)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = skl2onnx.convert_sklearn(
                model,
                "estimator",
                [(FLOATS, types.FloatTensorType([None, width]))],
                options={id(model): {"zipmap": False}} if classifies else None,
                final_types=[(name, None) for name in names],
                target_opset=OPSETS,
            )
    except Exception as error:  # converters raise whatever their authors chose
        raise _no_graph(model, error) from error
    found.ir_version = IR_VERSION
    return found


def _joined(features: Any, estimator: Any) -> Any:
    compose = require("onnx.compose", extra=EXTRA)
    helper = require("onnx.helper", extra=EXTRA)
    apart = compose.add_prefix(estimator, "model ", rename_inputs=False, rename_outputs=False)
    del apart.opset_import[:]
    apart.opset_import.extend(helper.make_opsetid(*each) for each in OPSETS.items())
    return compose.merge_models(features, apart, io_map=[(FLOATS, FLOATS)])


def _check(graph: Any, model: Any) -> None:
    onnx = require("onnx", extra=EXTRA)
    try:
        onnx.checker.check_model(graph)
    except (onnx.checker.ValidationError, ValueError, TypeError) as error:
        raise _no_graph(model, error) from error


def _no_graph(model: Any, error: Exception) -> NoGraph:
    return NoGraph(f"{type(model).__name__} cannot be written as ONNX: {first_line(error)}")


def to_skops(pipeline: Any, path: Path) -> tuple[str, ...]:
    """Write the pipeline as skops, and return the types that whoever reads it has to trust.

    Raises:
        InvalidRequest: it holds a type that nobody has reviewed; the model must not be served.
    """
    skops = require("skops.io", extra=EXTRA)
    skops.dump(pipeline, path)
    found = tuple(sorted(skops.get_untrusted_types(file=path)))
    unknown = [each for each in found if not is_reviewed(each)]
    if unknown:
        path.unlink()
        raise InvalidRequest(
            f"The pipeline holds {', '.join(unknown)}, which nobody has reviewed; it cannot be "
            "stored without running code when it is read"
        )
    return found


def from_skops(path: Path, trusted: Sequence[str]) -> Any:
    """Read a pipeline back; nothing in it runs but what is trusted.

    Raises:
        NotFound: there is no such file.
        InvalidRequest: it is damaged, or holds another type.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise NotFound("file", path.name) from None
    return classical_pipelines.load(data, trusted=trusted, max_bytes=MAX_BYTES)


def libraries() -> dict[str, str]:
    """Return the versions of the packages that a model depends on, of those that are here."""
    from importlib import metadata

    found = {}
    for name in ("scikit-learn", "skl2onnx", "onnx", "skops", "numpy", "lightgbm", "xgboost-cpu"):
        try:
            found[re.sub(r"-cpu$", "", name)] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found

"""The graph of what makes features: in doubles, so that they equal the pipeline's to the bit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from infra.classical import Column
from infra.classical_rows import is_text
from infra.plugins import require
from training.tabular.pipelines import CATEGORIES, NUMBERS

EXTRA = "classical"
FEATURES = "features of the model"
"""The name of the graph's output, of shape (rows, features)."""


class Nodes:
    """Nodes and constants of a graph in the making."""

    def __init__(self, prefix: str) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._helper = require("onnx.helper", extra=EXTRA)
        self._numpy = require("onnx.numpy_helper", extra=EXTRA)
        self._prefix = prefix

    def constant(self, values: Any) -> str:
        """Add a constant and return its name."""
        name = f"{self._prefix} constant {len(self.constants)}"
        self.constants.append(self._numpy.from_array(np.asarray(values), name))
        return name

    def texts(self, values: Sequence[str]) -> str:
        """Add a constant of text, of shape (values,), and return its name."""
        name = f"{self._prefix} constant {len(self.constants)}"
        onnx = require("onnx", extra=EXTRA)
        data = [each.encode() for each in values]
        kind = onnx.TensorProto.STRING
        self.constants.append(self._helper.make_tensor(name, kind, [len(data)], data))
        return name

    def add(
        self, kind: str, *inputs: str, output: str | None = None, domain: str = "", **how: Any
    ) -> str:
        """Add a node and return the name of its output."""
        name = output or f"{self._prefix} {len(self.nodes)} {kind}"
        self.nodes.append(
            self._helper.make_node(kind, list(inputs), [name], name, domain=domain, **how)
        )
        return name


def build(features: Any, columns: Sequence[Column]) -> tuple[Nodes, list[Any]]:
    """Return nodes from the raw columns to `FEATURES`, and the graph's inputs.

    Args:
        features: the trained first step of a pipeline, as `pipelines` makes it.
        columns: in their order; each becomes an input of shape (rows, 1).
    """
    onnx, helper = (require(name, extra=EXTRA) for name in ("onnx", "onnx.helper"))
    kinds = onnx.TensorProto
    inputs = [
        helper.make_tensor_value_info(
            each.name, kinds.STRING if is_text(each) else kinds.DOUBLE, [None, 1]
        )
        for each in columns
    ]
    nodes = Nodes("features")
    parts: list[str] = []
    fitted = features.named_transformers_
    numbers = [each.name for each in columns if not is_text(each)]
    if numbers:
        parts.append(_numbers(nodes, fitted[NUMBERS], numbers))
    texts = [each.name for each in columns if is_text(each)]
    if texts:
        parts += _categories(nodes, fitted[CATEGORIES], texts)
    nodes.add("Concat", *parts, output=FEATURES, axis=1)
    return nodes, inputs


def _numbers(nodes: Nodes, fitted: Any, names: Sequence[str]) -> str:
    whole = nodes.add("Concat", *names, axis=1)
    filler = nodes.constant(np.asarray(fitted.named_steps["imputation"].statistics_, np.float64))
    found = nodes.add("Where", nodes.add("IsNaN", whole), filler, whole)
    scaling = fitted.named_steps.get("scaling")
    if scaling is None:
        return found
    if hasattr(scaling, "mean_"):
        found = nodes.add("Sub", found, nodes.constant(scaling.mean_))
        return nodes.add("Div", found, nodes.constant(scaling.scale_))
    found = nodes.add("Mul", found, nodes.constant(scaling.scale_))
    return nodes.add("Add", found, nodes.constant(scaling.min_))


def _categories(nodes: Nodes, fitted: Any, names: Sequence[str]) -> list[str]:
    onnx = require("onnx", extra=EXTRA)
    found = []
    for name, known in zip(names, fitted.categories_, strict=True):
        values = [str(each) for each in known]
        if hasattr(fitted, "handle_unknown") and fitted.handle_unknown == "ignore":
            encoded = nodes.add(
                "OneHotEncoder", name, domain="ai.onnx.ml", cats_strings=values, zeros=1
            )
            shape = nodes.constant(np.array([-1, len(values)], dtype=np.int64))
            encoded = nodes.add("Reshape", encoded, shape)
        else:
            encoded = nodes.add(
                "LabelEncoder",
                name,
                domain="ai.onnx.ml",
                keys_strings=values,
                values_floats=[float(place) for place in range(len(values))],
                default_float=-1.0,
            )
        found.append(nodes.add("Cast", encoded, to=onnx.TensorProto.DOUBLE))
    return found

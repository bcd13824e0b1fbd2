"""Graphs of estimators in doubles: linear ones, and trees boosted over histograms."""

from __future__ import annotations

from typing import Any

import numpy as np

from infra.errors import InvalidRequest
from infra.plugins import require
from training.tabular.graph_features import EXTRA, FEATURES, Nodes

LINEAR = ("LogisticRegression", "Ridge", "LinearRegression")
BOOSTED = ("HistGradientBoostingClassifier", "HistGradientBoostingRegressor")


class NoGraph(InvalidRequest):
    """A pipeline cannot be written as a graph."""


def add(nodes: Nodes, model: Any) -> bool:
    """Add a trained estimator's nodes from `FEATURES` to the outputs, if it is one known here."""
    kind = type(model).__name__
    if kind not in {*LINEAR, *BOOSTED}:
        return False
    raw = _linear(nodes, model) if kind in LINEAR else _boosted(nodes, model)
    if not hasattr(model, "classes_"):
        _cast(nodes, raw, "prediction")
        return True
    if len(model.classes_) == 2:
        chance = nodes.add("Sigmoid", raw)
        rest = nodes.add("Sub", nodes.constant(np.ones((1, 1))), chance)
        chances = nodes.add("Concat", rest, chance, axis=1)
    else:
        chances = nodes.add("Softmax", raw, axis=1)
    _cast(nodes, chances, "probabilities")
    label(nodes, model.classes_)
    return True


def label(nodes: Nodes, classes: Any) -> None:
    """Add the most probable class as `label`."""
    known = list(classes)
    names = (
        nodes.texts([str(each) for each in known])
        if isinstance(known[0], str)
        else nodes.constant(np.asarray(known, dtype=np.int64))
    )
    place = nodes.add("ArgMax", "probabilities", axis=1, keepdims=0)
    nodes.add("Gather", names, place, output="label")


def _cast(nodes: Nodes, name: str, output: str) -> None:
    onnx = require("onnx", extra=EXTRA)
    nodes.add("Cast", name, output=output, to=onnx.TensorProto.FLOAT)


def _linear(nodes: Nodes, model: Any) -> str:
    weights = np.atleast_2d(np.asarray(model.coef_, dtype=np.float64)).T
    offset = np.asarray(model.intercept_, dtype=np.float64).reshape(1, -1)
    found = nodes.add("MatMul", FEATURES, nodes.constant(weights))
    return nodes.add("Add", found, nodes.constant(offset))


def _boosted(nodes: Nodes, model: Any) -> str:
    """Add one node of all trees; comparisons are in doubles, as scikit-learn's are.

    Raises:
        NoGraph: the loss has another link than the identity, or a split is on categories.
    """
    onnx = require("onnx", extra=EXTRA)
    is_class = hasattr(model, "classes_")
    if not is_class and type(model._loss.link).__name__ != "IdentityLink":
        raise NoGraph(f"The loss {model.loss!r} has no graph here; use 'squared_error'")
    trees = [tree.nodes for step in model._predictors for tree in step]
    targets = [target for step in model._predictors for target in range(len(step))]
    if any(each["is_categorical"].any() for each in trees):
        raise NoGraph("Splits on categories have no graph here; encode them as one_hot")
    sizes = [len(each) for each in trees]
    every = np.concatenate(trees)
    tree_ids = np.repeat(np.arange(len(trees)), sizes)
    node_ids = np.concatenate([np.arange(size) for size in sizes])
    leaf = every["is_leaf"].astype(bool)
    base = np.asarray(model._baseline_prediction, dtype=np.float64).reshape(-1)
    numbers = require("onnx.numpy_helper", extra=EXTRA)
    total = nodes.add(
        "TreeEnsembleRegressor",
        FEATURES,
        domain="ai.onnx.ml",
        n_targets=len(base),
        nodes_treeids=tree_ids.tolist(),
        nodes_nodeids=node_ids.tolist(),
        nodes_featureids=np.where(leaf, 0, every["feature_idx"]).astype(int).tolist(),
        nodes_modes=np.where(leaf, "LEAF", "BRANCH_LEQ").tolist(),
        nodes_truenodeids=np.where(leaf, 0, every["left"]).astype(int).tolist(),
        nodes_falsenodeids=np.where(leaf, 0, every["right"]).astype(int).tolist(),
        nodes_missing_value_tracks_true=every["missing_go_to_left"].astype(int).tolist(),
        nodes_values_as_tensor=numbers.from_array(
            np.where(leaf, 0.0, every["num_threshold"]).astype(np.float64), "thresholds"
        ),
        target_treeids=tree_ids[leaf].tolist(),
        target_nodeids=node_ids[leaf].tolist(),
        target_ids=np.repeat(np.array(targets), sizes)[leaf].tolist(),
        target_weights_as_tensor=numbers.from_array(
            every["value"][leaf].astype(np.float64), "weights"
        ),
    )
    wide = nodes.add("Cast", total, to=onnx.TensorProto.DOUBLE)
    return nodes.add("Add", wide, nodes.constant(base.reshape(1, -1)))

"""Boosted trees as arrays: read from JSON, walked by all rows at once; nothing is unpickled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEAF = -1


@dataclass(frozen=True, slots=True)
class Trees:
    """The nodes of all trees, one after the other."""

    features: tuple[str, ...]
    """Columns that rows must have, in this order."""
    roots: NDArray[np.int32]
    feature: NDArray[np.int32]
    """The column a node asks about; -1 for a leaf."""
    threshold: NDArray[np.float64]
    """Values up to it go left."""
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    unknown_left: NDArray[np.bool_]
    """Whether what is not known goes left."""
    value: NDArray[np.float64]
    """What a leaf adds to the logit."""
    baseline: float
    depth: int

    def logits(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the logit of each row of `(rows, features)`."""
        at = np.broadcast_to(self.roots, (len(rows), len(self.roots)))
        for _ in range(self.depth):
            asked = self.feature[at]
            values = np.take_along_axis(rows, np.maximum(asked, 0), axis=1)
            goes_left = np.where(
                np.isnan(values), self.unknown_left[at], values <= self.threshold[at]
            )
            at = np.where(asked == LEAF, at, np.where(goes_left, self.left[at], self.right[at]))
        logits: NDArray[np.float64] = self.baseline + self.value[at].sum(axis=1)
        return logits


def from_json(stored: Mapping[str, Any]) -> Trees:
    """Read what `as_json` wrote."""
    return Trees(
        features=tuple(stored["features"]),
        roots=np.array(stored["roots"], dtype=np.int32),
        feature=np.array(stored["feature"], dtype=np.int32),
        threshold=np.array(stored["threshold"], dtype=np.float64),
        left=np.array(stored["left"], dtype=np.int32),
        right=np.array(stored["right"], dtype=np.int32),
        unknown_left=np.array(stored["unknown_left"], dtype=np.bool_),
        value=np.array(stored["value"], dtype=np.float64),
        baseline=float(stored["baseline"]),
        depth=int(stored["depth"]),
    )


def as_json(trees: Trees) -> dict[str, Any]:
    """Return the trees as JSON's values; thresholds are values of the data, to the last digit."""
    return {
        "features": list(trees.features),
        "baseline": round(trees.baseline, 5),
        "depth": trees.depth,
        "roots": trees.roots.tolist(),
        "feature": trees.feature.tolist(),
        "threshold": trees.threshold.tolist(),
        "left": trees.left.tolist(),
        "right": trees.right.tolist(),
        "unknown_left": trees.unknown_left.astype(int).tolist(),
        "value": [_short(each) for each in trees.value],
    }


def joined(trees: Sequence[NDArray[Any]], *, features: Sequence[str], baseline: float) -> Trees:
    """Return scikit-learn's trees (the `nodes` of each) as ours."""
    nodes = np.concatenate(trees)
    sizes = np.array([len(tree) for tree in trees])
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int32)
    offset = np.repeat(starts, sizes)
    is_leaf = nodes["is_leaf"].astype(bool)
    return Trees(
        features=tuple(features),
        roots=starts,
        feature=np.where(is_leaf, LEAF, nodes["feature_idx"]).astype(np.int32),
        threshold=np.where(is_leaf, 0.0, nodes["num_threshold"]),
        left=np.where(is_leaf, 0, nodes["left"] + offset).astype(np.int32),
        right=np.where(is_leaf, 0, nodes["right"] + offset).astype(np.int32),
        unknown_left=nodes["missing_go_to_left"].astype(bool),
        value=np.where(is_leaf, nodes["value"], 0.0),
        baseline=baseline,
        depth=int(nodes["depth"].max()),
    )


def _short(value: float) -> float:
    return float(f"{value:.5g}")

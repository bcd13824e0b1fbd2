"""Figures of predictions: of classes by their probabilities, of amounts by their distance."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.plugins import require
from training.tabular.names import METRICS

TINY = 1e-15


def score(
    metric: str, truth: NDArray[Any], said: NDArray[Any], weights: NDArray[Any] | None = None
) -> float:
    """Return one figure.

    Args:
        metric: one of `METRICS`.
        truth: codes of classes, or amounts, of shape (rows,).
        said: probabilities of shape (rows, classes), or amounts of shape (rows,).
        weights: what each row counts.
    """
    metrics = require("sklearn.metrics", extra="classical")
    match metric:
        case "log_loss":
            chances = np.clip(said[np.arange(len(truth)), truth], TINY, 1.0)
            return float(np.average(-np.log(chances), weights=weights))
        case "roc_auc":
            return _auroc(truth, said, weights)
        case "accuracy":
            return float(np.average(said.argmax(axis=1) == truth, weights=weights))
        case "balanced_accuracy":
            chosen = said.argmax(axis=1)
            shares = [
                np.average(chosen[truth == code] == code, weights=_of(weights, truth == code))
                for code in np.unique(truth)
            ]
            return float(np.mean(shares))
        case "f1_macro":
            return float(
                metrics.f1_score(
                    truth, said.argmax(axis=1), average="macro", sample_weight=weights,
                    zero_division=0.0,
                )
            )  # fmt: skip
        case "mae":
            return float(np.average(np.abs(truth - said), weights=weights))
        case "rmse":
            return float(np.sqrt(np.average((truth - said) ** 2, weights=weights)))
        case _:
            return float(metrics.r2_score(truth, said, sample_weight=weights))


def scores(
    task: str, truth: NDArray[Any], said: NDArray[Any], weights: NDArray[Any] | None = None
) -> dict[str, float]:
    """Return every figure of a task."""
    names = [name for name, each in METRICS.items() if each.task == task]
    return {name: score(name, truth, said, weights) for name in names}


def is_better(metric: str, one: float, other: float) -> bool:
    """Whether the first figure is surely the better; NaN never is."""
    if np.isnan(one):
        return False
    if np.isnan(other):
        return True
    return one > other if METRICS[metric].higher_is_better else one < other


def gain(metric: str, one: float, other: float) -> float:
    """Return by how much the first figure is better; below 0 if it is worse."""
    return one - other if METRICS[metric].higher_is_better else other - one


def losses(task: str, truth: NDArray[Any], said: NDArray[Any]) -> NDArray[np.float64]:
    """Return the loss of each row: 1 or 0 for a wrong or right code, or the distance."""
    if task == "classification":
        return np.asarray(said != truth, dtype=np.float64)
    return np.asarray(np.abs(truth - said), dtype=np.float64)


def _auroc(truth: NDArray[Any], said: NDArray[Any], weights: NDArray[Any] | None) -> float:
    """Return the mean over classes of each against the others; NaN where one class is alone."""
    metrics = require("sklearn.metrics", extra="classical")
    present = np.unique(truth)
    if len(present) < 2:
        return float("nan")
    codes = [1] if said.shape[1] == 2 else present
    found = [
        metrics.roc_auc_score(truth == code, said[:, code], sample_weight=weights) for code in codes
    ]
    return float(np.mean(found))


def _of(weights: NDArray[Any] | None, mask: NDArray[Any]) -> NDArray[Any] | None:
    return None if weights is None else weights[mask]

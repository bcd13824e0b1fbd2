"""How well a classifier did, window by window, where labels have arrived: concept drift."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from infra.errors import InvalidRequest
from monitoring.columns import Floats
from monitoring.performance import METRICS, THRESHOLD, Metric, values_of
from monitoring.shapes import Change, name_shape

_RESAMPLES = 200


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """A metric over windows of equal length, and the shape of its change."""

    metric: Metric
    values: Floats
    """Of each window in which the metric has a value, in order, (windows,)."""
    errors: Floats
    """Their standard errors if nothing changed, by bootstrap and by how many rows each is of."""
    change: Change
    left_out: int = 0
    """Windows without a value, such as the recall of rows none of which is positive."""


def follow(
    metric: Metric,
    labels: npt.NDArray[np.bool_],
    probabilities: Floats,
    *,
    rows: int,
    threshold: float = THRESHOLD,
    seed: int = 0,
) -> History:
    """Return a metric in each window of so many rows, in order, and how it changed.

    The same features that mean something else now are invisible without labels; here they show.

    Args:
        metric: of `performance.METRICS`.
        labels: whether each row is positive, (n,), in the order of the predictions.
        probabilities: of the positive class, (n,).
        rows: of a window; a last one that is shorter is left out.
        threshold: from which probability on a row is called positive.
        seed: of the bootstrap and of the simulation behind the shape.

    Raises:
        InvalidRequest: the metric is unknown, or labels and probabilities are of other rows.
    """
    if metric not in METRICS:
        raise InvalidRequest(f"No metric {metric!r}; there are {', '.join(METRICS)}")
    if labels.shape != probabilities.shape or rows < 2:
        raise InvalidRequest(
            f"{labels.size} labels, {probabilities.size} probabilities, windows of {rows!r} rows; "
            "give both of each row, and windows of 2 or more"
        )
    pieces = [slice(at, at + rows) for at in range(0, labels.size - rows + 1, rows)]
    said = probabilities >= threshold
    value = partial(values_of, metric, threshold=threshold)
    found = np.array([value(labels[None, at], probabilities[at])[0] for at in pieces])
    weighed = np.array([_weighed(metric, labels[at], said[at]) for at in pieces])
    has_value = np.isfinite(found)
    values = found[has_value]
    rng = np.random.default_rng(seed)
    weight = _weighed(metric, labels, said)
    unit = _error_of_one(value, labels, probabilities, weight, rng) if values.size else 1.0
    errors = unit / np.sqrt(weighed[has_value])
    change = name_shape(values, errors, seed=seed)
    return History(metric, values, errors, change, int((~has_value).sum()))


def _error_of_one(
    value: Callable[..., Floats],
    labels: npt.NDArray[np.bool_],
    scores: Floats,
    weight: float,
    rng: np.random.Generator,
) -> float:
    """Return the standard error of a metric whose denominator is 1, if nothing changed.

    By bootstrap of all rows: that of a window alone goes with its value, two hits in two rows would
    have none at all, and windows that are high by chance would weigh most.
    """
    drawn = np.empty(_RESAMPLES)
    for number in range(_RESAMPLES):
        places = rng.integers(labels.size, size=labels.size)
        drawn[number] = value(labels[None, places], scores[places])[0]
    drawn = drawn[np.isfinite(drawn)]
    weight = max(weight, 1.0)
    error = float(drawn.std()) if drawn.size > 1 else 1.0
    return max(error, 1 / weight) * math.sqrt(weight)


def _weighed(metric: Metric, labels: npt.NDArray[np.bool_], said: npt.NDArray[np.bool_]) -> float:
    """Return how many rows a metric is a share of: its denominator; of AUROC, the rarer class."""
    positive, called = int(labels.sum()), int(said.sum())
    rows: dict[Metric, float] = {
        "accuracy": labels.size,
        "precision": called,
        "recall": positive,
        "f1": (positive + called) / 2,
        "auroc": min(positive, labels.size - positive),
    }
    return rows[metric]

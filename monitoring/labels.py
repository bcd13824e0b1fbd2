"""How well a classifier did, window by window, where labels have arrived: concept drift."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from infra.errors import InvalidRequest
from monitoring.columns import Floats
from monitoring.performance import METRICS, Metric, values_of
from monitoring.shapes import Change, name_shape

_RESAMPLES = 200


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """A metric over windows of equal length, and the shape of its change."""

    metric: Metric
    values: Floats
    """Of each window in which the metric has a value, in order, (windows,)."""
    errors: Floats
    """Their standard errors, by bootstrap."""
    change: Change
    left_out: int = 0
    """Windows without a value, such as the recall of rows none of which is positive."""


def follow(
    metric: Metric,
    labels: npt.NDArray[np.bool_],
    probabilities: Floats,
    *,
    rows: int,
    level: float = 0.05,
    seed: int = 0,
) -> History:
    """Return a metric in each window of so many rows, in order, and how it changed.

    The same features that mean something else now are invisible without labels; here they show.

    Args:
        metric: of `performance.METRICS`.
        labels: whether each row is positive, (n,), in the order of the predictions.
        probabilities: of the positive class, (n,).
        rows: of a window; a last one that is shorter is left out.
        level: probability of naming a change where there is none.
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
    rng = np.random.default_rng(seed)
    found = [
        _window(metric, labels[at : at + rows], probabilities[at : at + rows], rng)
        for at in range(0, labels.size - rows + 1, rows)
    ]
    kept = [(value, error) for value, error in found if np.isfinite(value)]
    values, errors = (
        (np.array(each) for each in zip(*kept, strict=True))
        if kept
        else (
            np.empty(0),
            np.empty(0),
        )
    )
    change = name_shape(values, errors, level=level, seed=seed)
    return History(metric, values, errors, change, len(found) - len(kept))


def _window(
    metric: Metric, labels: npt.NDArray[np.bool_], scores: Floats, rng: np.random.Generator
) -> tuple[float, float]:
    """Return the value and its standard error, no less than that of one row in all."""
    value = float(values_of(metric, labels[None, :], scores)[0])
    drawn = np.array(
        [
            values_of(metric, labels[None, places], scores[places])[0]
            for places in rng.integers(labels.size, size=(_RESAMPLES, labels.size))
        ]
    )
    drawn = drawn[np.isfinite(drawn)]
    error = float(drawn.std()) if drawn.size > 1 else 1.0
    return value, max(error, 1 / labels.size)

"""How well a classifier does where labels are not there yet, from its calibrated confidence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from infra.errors import InvalidRequest
from infra.plugins import require
from monitoring import support
from monitoring.calibration import Calibration
from monitoring.columns import EXTRA, Floats

Metric: TypeAlias = Literal["accuracy", "precision", "recall", "f1", "auroc"]
METRICS: tuple[Metric, ...] = ("accuracy", "precision", "recall", "f1", "auroc")
LEAST_ROWS = 100
THRESHOLD = 0.5
"""From which probability on a row is called positive, unless somebody says another."""
SIMULATIONS = 200
"""Draws of labels that an estimate and its bounds come from."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A metric without labels, with bounds for what labels would say; or why there is none."""

    metric: str
    estimate: float | None
    low: float | None = None
    high: float | None = None
    level: float = 0.95
    rows: int = 0
    refused: str = ""
    """Why no estimate is given; empty where one is."""
    effective_rows: float | None = None
    """Of the reference, as many equal ones as its weighted rows are worth."""


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """What a classifier said of the rows of a window.

    Raises:
        InvalidRequest: a probability is not between 0 and 1, or the features are of other rows.
    """

    probabilities: Floats
    """Of the positive class, (rows,)."""
    features: Floats | None = None
    """What the classifier saw, (rows, features); for `weighted`."""

    def __post_init__(self) -> None:
        _check_probabilities(self.probabilities)
        if self.features is not None and self.features.shape[:1] != self.probabilities.shape:
            raise InvalidRequest(
                f"Features of shape {self.features.shape!r} are not of "
                f"{self.probabilities.size} rows"
            )


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """Predictions with their labels, of rows that the classifier was not trained on."""

    predictions: Predictions
    labels: npt.NDArray[np.bool_]
    """Whether the row is positive."""

    def __post_init__(self) -> None:
        if self.labels.shape != self.predictions.probabilities.shape:
            raise InvalidRequest(
                f"{self.predictions.probabilities.size} probabilities and {self.labels.size} "
                "labels; give both of each row"
            )


def estimate(
    metric: Metric,
    reference: Reference,
    window: Predictions,
    *,
    threshold: float = THRESHOLD,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """Estimate a metric of a window by confidence: CBPE.

    Probabilities are calibrated on the reference (isotonic regression) and taken for what they
    say: the labels of the window are drawn from them, the reference is drawn anew for each draw,
    and the bounds enclose what the labels would give, less what a calibration errs by when its
    own labels are drawn again. True as long as rows with the same probability are positive as
    often as they were; where that changed (concept drift), it is wrong, and nothing in the window
    can tell.

    Of several classes see `class_estimates`.

    Raises:
        InvalidRequest: the metric is unknown.
    """
    if refused := _refusal(metric, reference, window):
        return Estimate(metric, None, rows=window.probabilities.size, refused=refused)
    weights = np.ones(reference.labels.size)
    return _simulate(metric, reference, window, weights, (threshold, level, seed))


def weighted(
    metric: Metric,
    reference: Reference,
    window: Predictions,
    *,
    threshold: float = THRESHOLD,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """Estimate as `estimate` does, calibrated on reference rows that are like those of the window.

    Reference rows are weighted by the ratio of densities, window over reference (the idea of
    PAPE). It is refused where the window lies outside of what the reference has seen: nothing
    is known there, and an estimate would look as sure as any.

    Raises:
        InvalidRequest: the metric is unknown, or the features are absent or of another number.
    """
    if refused := _refusal(metric, reference, window):
        return Estimate(metric, None, rows=window.probabilities.size, refused=refused)
    before, now = reference.predictions.features, window.features
    if before is None or now is None or before.shape[1] != now.shape[1]:
        shapes = [None if each is None else each.shape for each in (before, now)]
        raise InvalidRequest(f"Give the same features of both: they have the shapes {shapes!r}")
    found = support.weigh(before, now, seed=seed)
    if found.refused:
        rows, effective = window.probabilities.size, found.effective_rows
        return Estimate(metric, None, rows=rows, refused=found.refused, effective_rows=effective)
    return _simulate(metric, reference, window, found.weights, (threshold, level, seed))


def _simulate(
    metric: Metric,
    reference: Reference,
    window: Predictions,
    weights: Floats,
    how: tuple[float, float, int],
) -> Estimate:
    threshold, level, seed = how
    rng = np.random.default_rng(seed)
    scores = window.probabilities
    value = metric_of(metric, scores, threshold)
    calibration = Calibration(reference.predictions.probabilities, reference.labels)
    drawn = np.empty((SIMULATIONS, scores.size), dtype=np.bool_)
    for number in range(SIMULATIONS):
        rows = rng.integers(weights.size, size=weights.size)
        expected = calibration.at(scores, rows, weights[rows])
        drawn[number] = rng.random(scores.size) < expected
    values, likely = (
        value(drawn),
        value(_likely_labels(calibration, reference, scores, weights, seed)),
    )
    values, likely = values[np.isfinite(values)], likely[np.isfinite(likely)]
    if min(values.size, likely.size) < SIMULATIONS / 2:
        reason = f"{metric} has no value in most draws: too few rows would be positive"
        return Estimate(metric, None, rows=scores.size, refused=reason)
    centre = float(values.mean())
    low, high = bounds(centre, likely, level)
    return Estimate(
        metric,
        centre,
        low,
        high,
        level,
        scores.size,
        effective_rows=float(weights.sum() ** 2 / (weights**2).sum()),
    )


def _likely_labels(
    calibration: Calibration, reference: Reference, scores: Floats, weights: Floats, seed: int
) -> npt.NDArray[np.bool_]:
    """Return labels that a window may have, (draws, rows), the calibration being what errs.

    A calibration follows the chance in its own labels, and so is surer than it should be. By how
    much is seen where it is fitted to labels that it says itself: what it then finds too high in
    a draw, it may have found too high before, and that is taken off.
    """
    rng = np.random.default_rng([seed, 1])
    every = np.arange(weights.size)
    known, fitted = (
        calibration.at(each, every, weights)
        for each in (reference.predictions.probabilities, scores)
    )
    drawn = np.empty((SIMULATIONS, scores.size), dtype=np.bool_)
    for number in range(SIMULATIONS):
        rows = rng.integers(weights.size, size=weights.size)
        labels = rng.random(rows.size) < known[rows]
        again = calibration.at(scores, rows, weights[rows], labels)
        drawn[number] = rng.random(scores.size) < 2 * fitted - again
    return drawn


def bounds(centre: float, values: Floats, level: float) -> tuple[float, float]:
    """Return what a value lies between with a probability, given an estimate and equal draws of it.

    Of n draws, the k-th smallest is above a further one with a probability of k / (n + 1): that
    is what Weibull's quantiles go by, others promise more than few draws hold.
    """
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2], method="weibull")
    return min(float(low), centre), max(float(high), centre)


def metric_of(
    metric: Metric, scores: Floats, threshold: float
) -> Callable[[npt.NDArray[np.bool_]], Floats]:
    """Return the function from labels, (draws, rows), to values, (draws,), NaN where undefined."""
    if metric == "auroc":
        ranks = require("scipy.stats", extra=EXTRA).rankdata(scores)
        return lambda labels: _area(labels, ranks)
    predicted = scores >= threshold

    def value(labels: npt.NDArray[np.bool_]) -> Floats:
        hits = (labels & predicted).sum(axis=1).astype(np.float64)
        positive, said = labels.sum(axis=1), predicted.sum()
        parts: dict[str, tuple[Any, Any]] = {
            "accuracy": ((labels == predicted).sum(axis=1), labels.shape[1]),
            "precision": (hits, said),
            "recall": (hits, positive),
            "f1": (2 * hits, positive + said),
        }
        above, below = parts[metric]
        below = np.broadcast_to(np.asarray(below, dtype=np.float64), hits.shape)
        return np.where(below > 0, above / np.maximum(below, 1), np.nan)

    return value


def _area(labels: npt.NDArray[np.bool_], ranks: Floats) -> Floats:
    ones = labels.sum(axis=1).astype(np.float64)
    pairs = ones * (labels.shape[1] - ones)
    wins = labels @ ranks - ones * (ones + 1) / 2
    area: Floats = np.where(pairs > 0, wins / np.maximum(pairs, 1), np.nan)
    return area


def _refusal(metric: Metric, reference: Reference, window: Predictions) -> str:
    if metric not in METRICS:
        raise InvalidRequest(f"No metric {metric!r}; there are {', '.join(METRICS)}")
    rows = window.probabilities.size
    if min(rows, reference.labels.size) < LEAST_ROWS:
        return (
            f"not enough data: {rows} rows and {reference.labels.size} of the reference; "
            f"{LEAST_ROWS} of each are needed"
        )
    if reference.labels.all() or not reference.labels.any():
        return "the reference has labels of one class only"
    return ""


def _check_probabilities(values: Floats) -> None:
    if values.ndim != 1 or not ((values >= 0) & (values <= 1)).all():
        raise InvalidRequest("Probabilities are numbers between 0 and 1, one for each row")

"""How well a classifier of several classes does where labels are not there yet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from infra.errors import InvalidRequest
from monitoring import support
from monitoring.calibration import Calibration
from monitoring.columns import Floats
from monitoring.performance import LEAST_ROWS, SIMULATIONS, Estimate, bounds

ClassMetric: TypeAlias = Literal["accuracy", "macro_precision", "macro_recall", "macro_f1"]
CLASS_METRICS: tuple[ClassMetric, ...] = (
    "accuracy",
    "macro_precision",
    "macro_recall",
    "macro_f1",
)
_SUM_WITHIN = 0.01


@dataclass(frozen=True, slots=True, eq=False)
class ClassPredictions:
    """What a classifier said of the rows of a window.

    Raises:
        InvalidRequest: a row is no distribution over two classes or more, or the features are of
            other rows.
    """

    probabilities: Floats
    """Shape (rows, classes)."""
    features: Floats | None = None
    """What the classifier saw, (rows, features): to weight the reference by."""

    def __post_init__(self) -> None:
        given = self.probabilities
        is_one = given.ndim == 2 and given.shape[1] > 1 and (given >= 0).all()
        if not is_one or (abs(given.sum(axis=1) - 1) > _SUM_WITHIN).any():
            raise InvalidRequest(
                "Probabilities of several classes are not below 0, and sum to 1 in each row"
            )
        if self.features is not None and len(self.features) != len(given):
            raise InvalidRequest(
                f"Features of shape {self.features.shape!r} are not of {len(given)} rows"
            )


@dataclass(frozen=True, slots=True, eq=False)
class ClassReference:
    """Predictions with their labels, of rows that the classifier was not trained on."""

    predictions: ClassPredictions
    labels: npt.NDArray[np.int64]
    """The class that was right, by its place, (rows,)."""

    def __post_init__(self) -> None:
        rows, classes = self.predictions.probabilities.shape
        if self.labels.shape != (rows,) or not ((self.labels >= 0) & (self.labels < classes)).all():
            raise InvalidRequest(f"Give one of {classes} classes for each of {rows} rows")


def estimate(
    metric: str,
    reference: ClassReference,
    window: ClassPredictions,
    *,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """Estimate a metric of a window by confidence, the most probable class being what is predicted.

    The probability of each class is calibrated against all others on the reference, and each row
    is made to sum to 1 again; labels are drawn from that. Where both have features, the reference
    is weighted to look like the window, and a window outside of it is refused. As of two classes,
    see `performance.estimate`, a change of what rows mean shows in nothing of this.

    Raises:
        InvalidRequest: the metric is unknown, or the classes are not as many.
    """
    if metric not in CLASS_METRICS:
        raise InvalidRequest(f"No metric {metric!r}; there are {', '.join(CLASS_METRICS)}")
    rows, classes = window.probabilities.shape
    known = reference.labels.size
    if reference.predictions.probabilities.shape[1] != classes:
        raise InvalidRequest(f"The window has {classes} classes, the reference another number")
    if min(rows, known) < LEAST_ROWS:
        refused = f"not enough data: {rows} rows and {known} of the reference; {LEAST_ROWS} of each"
        return Estimate(metric, None, rows=rows, refused=f"{refused} are needed")
    weights = np.ones(known)
    before, now = reference.predictions.features, window.features
    if before is not None and now is not None:
        found = support.weigh(before, now, seed=seed)
        if found.refused:
            return Estimate(
                metric, None, rows=rows, refused=found.refused, effective_rows=found.effective_rows
            )
        weights = found.weights
    calibrated = _Calibrated(reference, window, weights)
    value = FORMULAS[metric]
    centre = float(calibrated.believed(value, np.random.default_rng(seed)).mean())
    low, high = bounds(centre, calibrated.likely(value, np.random.default_rng([seed, 1])), level)
    effective = float(weights.sum() ** 2 / (weights**2).sum())
    return Estimate(
        metric,
        centre,
        low,
        high,
        level,
        rows,
        effective_rows=effective,
    )


class _Calibrated:
    """Labels of a window that are drawn from calibrated probabilities, and what a metric says."""

    def __init__(self, reference: ClassReference, window: ClassPredictions, weights: Floats):
        self._known = reference.predictions.probabilities
        self._said = window.probabilities
        self._weights = weights
        self._each = [
            Calibration(self._known[:, place], reference.labels == place)
            for place in range(self._known.shape[1])
        ]

    def believed(self, value: Callable[[Floats], float], rng: np.random.Generator) -> Floats:
        """Return the metric where calibrations are right, the reference drawn anew, (draws,)."""
        values = np.empty(SIMULATIONS)
        for number in range(SIMULATIONS):
            rows = rng.integers(self._weights.size, size=self._weights.size)
            values[number] = self._value(value, self._fit(self._said, rows), rng)
        return values

    def likely(self, value: Callable[[Floats], float], rng: np.random.Generator) -> Floats:
        """Return the metric less what calibrations err by, as of two classes, (draws,)."""
        every = np.arange(self._weights.size)
        known, fitted = self._fit(self._known, every), self._fit(self._said, every)
        values = np.empty(SIMULATIONS)
        for number in range(SIMULATIONS):
            rows = rng.integers(self._weights.size, size=self._weights.size)
            again = self._fit(self._said, rows, _one_of(known[rows], rng))
            likely = np.maximum(2 * fitted - again, 0)
            values[number] = self._value(value, likely, rng)
        return values

    def _fit(
        self, at: Floats, rows: npt.NDArray[np.int64], labels: npt.NDArray[np.int64] | None = None
    ) -> Floats:
        """Return the probability of each class, each calibrated for itself, (at, classes)."""
        weights = self._weights[rows]
        found = [
            each.at(at[:, place], rows, weights, None if labels is None else labels == place)
            for place, each in enumerate(self._each)
        ]
        expected = np.stack(found, axis=1)
        total = expected.sum(axis=1, keepdims=True)
        # A row that no class is left for keeps what the classifier said.
        return np.where(total > 0, expected / np.maximum(total, 1e-12), at)

    def _value(
        self, value: Callable[[Floats], float], chances: Floats, rng: np.random.Generator
    ) -> float:
        classes = chances.shape[1]
        pairs = _one_of(chances, rng) * classes + self._said.argmax(axis=1)
        counts = np.bincount(pairs, minlength=classes**2)
        return value(counts.reshape(classes, classes).astype(np.float64))


def _one_of(chances: Floats, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Draw a class for each row, (rows,), by what is in proportion to its chances."""
    edges = np.cumsum(chances, axis=1)
    drawn: npt.NDArray[np.int64] = (
        rng.random((len(edges), 1)) * edges[:, -1:] > edges[:, :-1]
    ).sum(axis=1)
    return drawn


def _accuracy(counts: Floats) -> float:
    return float(np.trace(counts) / counts.sum())


def _macro(of: Callable[[Floats, Floats, Floats], Floats]) -> Callable[[Floats], float]:
    """Return the mean over classes that occur, as labels or as predictions; 0 where 0 of 0."""

    def value(counts: Floats) -> float:
        hits, labels, said = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
        occurs = labels + said > 0
        return float(of(hits, labels, said)[occurs].mean())

    return value


FORMULAS: dict[str, Callable[[Floats], float]] = {
    "accuracy": _accuracy,
    "macro_precision": _macro(lambda hits, _, said: hits / np.maximum(said, 1)),
    "macro_recall": _macro(lambda hits, labels, _: hits / np.maximum(labels, 1)),
    "macro_f1": _macro(lambda hits, labels, said: 2 * hits / np.maximum(labels + said, 1)),
}
"""From counts by label and prediction, (classes, classes), to the metric."""

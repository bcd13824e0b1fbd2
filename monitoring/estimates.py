"""How well a model does in a window: by its confidence, or by few labels and many scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from infra.errors import InvalidRequest
from infra.plugins import require
from monitoring import class_estimates
from monitoring.class_estimates import ClassPredictions, ClassReference
from monitoring.columns import EXTRA, Column, Floats
from monitoring.matrices import thinned, together
from monitoring.performance import (
    METRICS,
    Estimate,
    Predictions,
    Reference,
    estimate,
    weighted,
)
from monitoring.windows import Window

SHARE_RIGHT = "share right"
_ABOVE = 0.975
"""Where the upper one of two bounds of 95 % lies."""
LEAST_OF_A_PART = 10
"""Labels that rows which are estimated apart need, where there are as many."""
LEAST_EQUAL = 10
"""Values that are all equal say what their mean is; fewer may have been so by chance."""


class Interval(Protocol):
    """A mean between bounds."""

    @property
    def estimate(self) -> float: ...

    @property
    def low(self) -> float: ...

    @property
    def high(self) -> float: ...


Mean: TypeAlias = Callable[[Floats, Floats, Floats], Interval]
"""The mean of labels, given (n,) labels, (n,) scores of the same rows, (m,) scores of the others:
prediction-powered inference."""


@dataclass(frozen=True, slots=True)
class Unlabelled:
    """A metric of a classifier, estimated from its confidence."""

    name: str
    metric: str
    """Of two classes accuracy, precision, recall, f1 or auroc; of several accuracy,
    macro_precision, macro_recall or macro_f1."""
    probabilities: Mapping[str, str]
    """By class, the column of its probability; of two classes that of the positive one alone."""
    label: str
    """The reference's column of the class that was right."""
    features: Sequence[str] = ()
    """Columns that the classifier saw: by them the reference is weighted to look like the window,
    and the estimate refused where the window lies outside of it."""
    threshold: float = 0.5
    floor: float | None = None


@dataclass(frozen=True, slots=True)
class Labelled:
    """The share of rows that are right, by labels of a random sample of them."""

    name: str
    label: str
    """The column of what people said."""
    right: Sequence[str] = ()
    """What they say of a row that is right; empty where it is right if it is as predicted."""
    prediction: str = "prediction"
    """The column that the label is held against where `right` is empty."""
    judged: str | None = None
    """A column of numbers of every row that goes with being right, such as `groundedness`."""
    apart: Mapping[str, str] = field(default_factory=dict)
    """Columns with the value whose rows are labelled more often than others, such as
    `review = "unsupported"`: they are estimated for themselves."""
    least_labels: int = 50
    """Of all rows together; fewer say too little."""
    over: timedelta = timedelta(days=7)
    """How far back rows count: labels are few, and late."""
    floor: float | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Those that are looked at."""
        beside = () if self.judged is None else (self.judged,)
        return (self.label, self.prediction, *beside, *self.apart)


def without_labels(wanted: Unlabelled, reference: Window, window: Window) -> dict[str, Any]:
    """Estimate a metric of a window; the reference has labels.

    Raises:
        InvalidRequest: the metric is unknown, or what is called a probability is none.
        NotFound: the reference or the window has no such column.
    """
    estimate_it = _of_several if len(wanted.probabilities) > 1 else _of_two
    method = "confidence, weighted by density" if wanted.features else "confidence"
    found = estimate_it(wanted, reference, window)
    return _told(wanted.name, wanted.floor, method, found)


def with_labels(wanted: Labelled, window: Window, mean: Mean) -> dict[str, Any]:
    """Return the share that is right between bounds, or why it cannot be said.

    Raises:
        InvalidRequest: what goes with being right is no number.
        NotFound: the window has no such column.
    """
    return _told(wanted.name, wanted.floor, "labels", _share_right(wanted, window, mean))


def mean_of_column(name: str, floor: float, window: Window) -> dict[str, Any]:
    """Return the mean of a column of numbers between bounds of 95 %; or why there is none."""
    if window.rows and name not in window.names:
        return refused(name, floor, "mean", f"the window has no column {name!r}")
    values = window.column(name).present if name in window.names else np.empty(0)
    if values.dtype != np.float64 or values.ndim != 1 or len(values) < 2:
        return refused(name, floor, "mean", "there are not two numbers in this window")
    mean, reach = float(values.mean()), _reach(values)
    if reach == 0 and len(values) < LEAST_EQUAL:
        reason = f"all {len(values)} values are equal: too few to tell how far others may lie"
        return refused(name, floor, "mean", reason)
    found = Estimate("mean", mean, mean - reach, mean + reach, rows=len(values))
    return _told(name, floor, "mean", found)


def refused(name: str, floor: float | None, method: str, reason: str) -> dict[str, Any]:
    """Return what is told where nothing can be said."""
    return _told(name, floor, method, Estimate(name, None, refused=reason))


def below_floor(told: Mapping[str, Any]) -> bool:
    """Whether even the upper bound of what was told is below its floor."""
    high, floor = told["high"], told["floor"]
    return high is not None and floor is not None and bool(high < floor)


def _told(name: str, floor: float | None, method: str, found: Estimate) -> dict[str, Any]:
    return {
        "metric": name,
        "method": method,
        "floor": floor,
        "estimate": found.estimate,
        "low": found.low,
        "high": found.high,
        "rows": found.rows,
        "refused": found.refused,
    }


def _of_two(wanted: Unlabelled, reference: Window, window: Window) -> Estimate:
    if wanted.metric not in METRICS:
        raise InvalidRequest(f"No metric {wanted.metric!r}; there are {', '.join(METRICS)}")
    ((positive, column),) = wanted.probabilities.items()
    reference, window = thinned(reference), thinned(window)
    labels = _texts(reference, wanted.label)
    before, now = _numbers(reference, column), _numbers(window, column)
    known = np.array([each is not None for each in labels], dtype=np.bool_) & np.isfinite(before)
    seen = np.isfinite(now)
    features = _features(wanted.features, reference, window)
    predictions = [
        Predictions(values[rows], None if features is None else features[side][rows])
        for side, (values, rows) in enumerate(((before, known), (now, seen)))
    ]
    truth = np.array([each == positive for each in labels], dtype=np.bool_)[known]
    call = estimate if features is None else weighted
    return call(
        wanted.metric,
        Reference(predictions[0], truth),
        predictions[1],
        threshold=wanted.threshold,
    )


def _of_several(wanted: Unlabelled, reference: Window, window: Window) -> Estimate:
    reference, window = thinned(reference), thinned(window)
    classes = list(wanted.probabilities)
    before, now = (
        np.stack([_numbers(each, wanted.probabilities[name]) for name in classes], axis=1)
        for each in (reference, window)
    )
    places = {name: place for place, name in enumerate(classes)}
    labels = np.array(
        [
            places.get(each, -1) if each is not None else -1
            for each in _texts(reference, wanted.label)
        ]
    )
    known = (labels >= 0) & np.isfinite(before).all(axis=1)
    seen = np.isfinite(now).all(axis=1)
    features = _features(wanted.features, reference, window)
    predictions = [
        ClassPredictions(values[rows], None if features is None else features[side][rows])
        for side, (values, rows) in enumerate(((before, known), (now, seen)))
    ]
    return class_estimates.estimate(
        wanted.metric, ClassReference(predictions[0], labels[known]), predictions[1]
    )


def _share_right(wanted: Labelled, window: Window, mean: Mean) -> Estimate:
    is_right = _is_right(wanted, window)
    is_labelled = np.isfinite(is_right)
    labels = int(is_labelled.sum())
    if labels < max(2, wanted.least_labels):
        return _refused(labels, f"{labels} labels of the {wanted.least_labels} that are needed")
    judged = _judged(wanted, window)
    centre, squares = 0.0, 0.0
    for part, rows in _parts(wanted, window).items():
        known, rest = rows & is_labelled, rows & ~is_labelled
        if known.sum() < min(LEAST_OF_A_PART, rows.sum()):
            return _refused(labels, f"{int(known.sum())} labels where {part}: too few to tell")
        share = float(rows.sum()) / is_right.size
        value, reach = _mean_of(is_right[known], judged[known], judged[rest], mean)
        centre += share * value
        squares += (share * reach) ** 2
    reach = math.sqrt(squares)
    low, high = max(0.0, centre - reach), min(1.0, centre + reach)
    return Estimate(SHARE_RIGHT, centre, low, high, rows=labels)


def _refused(labels: int, reason: str) -> Estimate:
    return Estimate(SHARE_RIGHT, None, rows=labels, refused=reason)


def _mean_of(labels: Floats, beside: Floats, rest: Floats, mean: Mean) -> tuple[float, float]:
    """Return the mean of a part and half the width of its bounds.

    Rows are a sample of what the model does, those too that are all labelled; and n labels that
    agree leave room for as many others as may be missing from n by chance: 3.7 / n of them.
    """
    least = 1 - (1 - _ABOVE) ** (1 / labels.size)
    if not rest.size:
        return float(labels.mean()), max(_reach(labels), least)
    if rest.size == 1:
        rest, beside = np.zeros(2), np.zeros(labels.size)
    found = mean(labels, beside, rest)
    return found.estimate, max((found.high - found.low) / 2, least)


def _reach(values: Floats) -> float:
    """Return half the width of the bounds of a mean, by Student's t; 0 of a single value."""
    if len(values) < 2:
        return 0.0
    quantile = require("scipy.special", extra=EXTRA).stdtrit(len(values) - 1, _ABOVE)
    return float(quantile * values.std(ddof=1)) / math.sqrt(len(values))


def _parts(wanted: Labelled, window: Window) -> dict[str, npt.NDArray[np.bool_]]:
    """Return the rows of each part that is estimated for itself, those without one last."""
    left = np.ones(window.rows, dtype=np.bool_)
    parts: dict[str, npt.NDArray[np.bool_]] = {}
    for name, value in wanted.apart.items():
        if name in window.names:
            rows = np.array([each == value for each in _texts(window, name)], dtype=np.bool_) & left
            parts[f"{name} is {value!r}"] = rows
            left = left & ~rows
    parts["nothing sets them apart"] = left
    return {name: rows for name, rows in parts.items() if rows.any()}


def _is_right(wanted: Labelled, window: Window) -> Floats:
    """Return whether people say that each row is right, NaN where they say nothing, (rows,)."""
    said = _texts(window, wanted.label)
    if wanted.right:
        good = set(wanted.right)
        return np.array([np.nan if each is None else float(each in good) for each in said])
    predicted = _texts(window, wanted.prediction)
    pairs = zip(said, predicted, strict=True)
    return np.array(
        [np.nan if None in (label, guess) else float(label == guess) for label, guess in pairs]
    )


def _judged(wanted: Labelled, window: Window) -> Floats:
    """Return what goes with being right, its mean where it is missing; 0 where nothing does."""
    if wanted.judged is None:
        return np.zeros(window.rows)
    values = _numbers(window, wanted.judged)
    present = values[np.isfinite(values)]
    filled: Floats = np.where(np.isfinite(values), values, present.mean() if present.size else 0.0)
    return filled


def _features(
    names: Sequence[str], reference: Window, window: Window
) -> tuple[Floats, Floats] | None:
    if not names:
        return None
    before, now = together(reference, window, names)
    if not before.dimension:
        raise InvalidRequest(
            f"None of the features {', '.join(names)} is one kind of number or category in both, "
            "the reference and the window; name others"
        )
    return before.data, now.data


def _numbers(window: Window, name: str) -> Floats:
    column: Column = window.column(name)
    if column.kind not in {"numbers", "nothing"}:
        raise InvalidRequest(f"{name!r} holds {column.kind}, and numbers are needed")
    values: Floats = np.asarray(column.data, dtype=np.float64)
    return values


def _texts(window: Window, name: str) -> list[str | None]:
    """Return a column as texts, whole numbers without a point; None where there is no value."""
    column: Column = window.column(name)
    if column.kind == "categories":
        return [column.labels[code] if code >= 0 else None for code in column.data]
    return [f"{value:.15g}" if np.isfinite(value) else None for value in column.data]

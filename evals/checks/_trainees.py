"""What training checks train: estimators with fit and predict, and functions that return losses."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

from evals.check import Subject
from evals.suite import ALL
from infra.errors import InvalidRequest

Rows = tuple[list[Any], list[Any]]
"""Inputs and labels."""


def rows(subject: Subject) -> Rows:
    """Return the inputs and labels of all cases that have one, in an order that the seed draws.

    Raises:
        InvalidRequest: fewer than two have one.
    """
    cases = {trial.case.id: trial.case for trial in subject.evaluation.members(ALL)}
    known = [case for case in cases.values() if case.expected is not None]
    if len(known) < 2:
        raise InvalidRequest(f"{len(known)} cases have a label; training takes two at least")
    random.Random(subject.suite.seed).shuffle(known)
    return [case.input for case in known], [case.expected for case in known]


def batch(given: Rows, size: int) -> Rows:
    """Return the first rows of each label in turn, so that a small batch has several labels."""
    by_label: dict[str, list[int]] = {}
    for place, label in enumerate(given[1]):
        by_label.setdefault(repr(label), []).append(place)
    turns = [
        place
        for turn in range(size)
        for places in by_label.values()
        for place in places[turn : turn + 1]
    ]
    chosen = turns[:size]
    return [given[0][place] for place in chosen], [given[1][place] for place in chosen]


def is_regression(labels: Sequence[Any]) -> bool:
    """Whether labels are amounts: numbers, of which some are no whole ones or most differ."""
    numbers = [each for each in labels if isinstance(each, int | float)]
    if len(numbers) < len(labels) or any(isinstance(each, bool) for each in labels):
        return False
    is_whole = all(float(each).is_integer() for each in numbers)
    return not is_whole or len(set(numbers)) > max(20, len(numbers) // 2)


def quality(labels: Sequence[Any], predicted: Sequence[Any]) -> tuple[str, float]:
    """Return accuracy, or of amounts R2: 0 is what a constant would reach, 1 is without error.

    Raises:
        InvalidRequest: there are not as many predictions as labels, or one is no finite number.
    """
    found = [each.item() if hasattr(each, "item") else each for each in predicted]
    if len(found) != len(labels):
        raise InvalidRequest(f"{len(labels)} rows got {len(found)} predictions")
    if not is_regression(labels):
        right = sum(one == other for one, other in zip(labels, found, strict=True))
        return "accuracy", right / len(labels)
    return "R2", _r2([float(each) for each in labels], numbers(found))


def constant(labels: Sequence[Any]) -> float:
    """Return what the best constant reaches: the share of the commonest label, or an R2 of 0."""
    if is_regression(labels):
        return 0.0
    return max(labels.count(each) for each in set(labels)) / len(labels)


def numbers(values: Sequence[Any]) -> list[float]:
    """Return finite numbers.

    Raises:
        InvalidRequest: one is not.
    """
    found = [float(each) for each in values]
    wrong = next((each for each in found if not math.isfinite(each)), None)
    if wrong is not None:
        raise InvalidRequest(f"{wrong!r} is among what training gave; it must be finite")
    return found


def _r2(labels: list[float], predicted: list[float]) -> float:
    mean = sum(labels) / len(labels)
    spread = sum((each - mean) ** 2 for each in labels)
    missed = sum((one - other) ** 2 for one, other in zip(labels, predicted, strict=True))
    if spread == 0:
        return 1.0 if missed == 0 else 0.0
    return 1 - missed / spread

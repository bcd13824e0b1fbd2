"""Chooses from which probability on the positive of two classes is said, by held-out rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.classical import text_of
from infra.errors import InvalidRequest
from training.tabular.specification import Threshold

LEAST = 1e-6
"""Thresholds are kept away from 0 and 1 by this."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """A threshold and what it comes to."""

    thresholds: dict[str, float]
    """By the text of each class, as `infra.classical.decide` reads them."""
    value: float
    """Of the metric, at the threshold."""
    at_half: float
    """Of the metric, without one."""


def choose(
    truth: NDArray[Any],
    said: NDArray[np.float64],
    classes: tuple[Any, ...],
    asked: Threshold,
    *,
    weights: NDArray[np.float64] | None = None,
) -> Chosen:
    """Return the threshold that is best for rows whose model did not see them.

    Args:
        truth: codes, of shape (rows,).
        said: probabilities out of the folds; rows of NaN are passed over.
        classes: two, in the order of the codes.
        asked: which class is positive, and what is best.
        weights: what each row counts.

    Raises:
        InvalidRequest: there are not two classes, or none of them is the positive one.
    """
    names = [text_of(each) for each in classes]
    if len(names) != 2 or asked.positive not in names:
        raise InvalidRequest(
            f"imbalance.threshold: positive is {asked.positive!r}, and it must be one of two "
            f"classes; there are {', '.join(map(repr, names))}"
        )
    code = names.index(asked.positive)
    known = ~np.isnan(said).any(axis=1)
    chances, is_positive = said[known, code], truth[known] == code
    heavy = np.ones(len(chances)) if weights is None else weights[known]
    order = np.argsort(-chances, kind="stable")
    chances, is_positive, heavy = chances[order], is_positive[order], heavy[order]
    # Behind row k, the first k + 1 are called positive; only where the next differs can one cut.
    hits = np.concatenate([[0.0], np.cumsum(heavy * is_positive)])
    alarms = np.concatenate([[0.0], np.cumsum(heavy * ~is_positive)])
    values = _values(hits, alarms, asked)
    above = np.concatenate([[np.inf], chances])
    below = np.concatenate([chances, [-np.inf]])
    # No threshold keeps a probability of 1 out, and none lets one of 0 in.
    can_cut = (below < above) & (below < 1 - LEAST) & (above >= LEAST)
    cuts = np.flatnonzero(can_cut)
    best = int(cuts[np.argmax(values[cuts])])
    middle = (min(above[best], 1.0) + max(below[best], 0.0)) / 2
    threshold = float(np.clip(middle, LEAST, 1 - LEAST))
    half = int(np.searchsorted(-chances, -0.5, side="right"))
    thresholds = {names[code]: threshold, names[1 - code]: 1.0 - threshold}
    sign = -1.0 if asked.metric == "cost" else 1.0
    return Chosen(thresholds, sign * float(values[best]), sign * float(values[half]))


def _values(
    hits: NDArray[np.float64], alarms: NDArray[np.float64], asked: Threshold
) -> NDArray[np.float64]:
    """Return for each cut what is the better the higher it is."""
    positives, negatives = hits[-1], alarms[-1]
    missed = positives - hits
    found: NDArray[np.float64]
    if asked.metric == "f1":
        below = 2 * hits + alarms + missed
        found = np.divide(2 * hits, below, out=np.zeros_like(hits), where=below > 0)
    elif asked.metric == "balanced_accuracy":
        found = (hits / max(positives, 1e-12) + 1 - alarms / max(negatives, 1e-12)) / 2
    else:
        cost = asked.false_positive_cost * alarms + asked.false_negative_cost * missed
        found = -cost / max(positives + negatives, 1e-12)
    return found

"""Whether a window lies within what a reference has seen, and which of its rows are like it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from infra.plugins import require
from monitoring.columns import EXTRA, Floats

LEAST_EFFECTIVE = 100.0
MOST_TOLD_APART = 0.95
MOST_OUTSIDE = 0.05
"""Share of the window's rows that may lie farther from the reference than its own ever do."""
_HEAVIEST = 20.0
"""A row counts for at most so many."""
_NEIGHBOURS = 5_000
_FOLDS = 5


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """The density of the window over that of the reference, at the reference's rows."""

    weights: Floats
    effective_rows: float
    """(sum w)^2 / sum w^2, by Kish."""
    refused: str
    """Why no conclusion from one to the other holds; empty if one may."""


def weigh(reference: Floats, window: Floats, *, seed: int = 0) -> Weights:
    """Return the weights that make a reference look like a window, both (rows, features).

    The odds of a cross-fitted classifier are the ratio of densities (Bickel, Brückner & Scheffer,
    JMLR 2009). Outside the reference it has no meaning, so that is looked at first.
    """
    outside = share_outside(reference, window, seed=seed)
    if outside > MOST_OUTSIDE:
        return Weights(np.ones(len(reference)), 0.0, _refusal(0.0, 0.0, outside))
    ensemble = require("sklearn.ensemble", extra=EXTRA)
    selection = require("sklearn.model_selection", extra=EXTRA)
    metrics = require("sklearn.metrics", extra=EXTRA)
    points = np.concatenate([reference, window])
    is_window = np.repeat([0, 1], [len(reference), len(window)])
    model = ensemble.HistGradientBoostingClassifier(
        max_iter=60, max_leaf_nodes=8, learning_rate=0.1, l2_regularization=1.0, random_state=seed
    )
    folds = selection.StratifiedKFold(_FOLDS, shuffle=True, random_state=seed)
    # Of so few rows threads spend their time in waiting for each other: on cores that others use
    # too, thirty times as much as the work takes.
    with require("threadpoolctl", extra=EXTRA).threadpool_limits(1, user_api="openmp"):
        told = selection.cross_val_predict(
            model, points, is_window, cv=folds, method="predict_proba"
        )[:, 1]
    area = float(metrics.roc_auc_score(is_window, told))
    odds = told[is_window == 0] / np.maximum(1 - told[is_window == 0], 1e-6)
    weights = np.minimum(odds * len(reference) / len(window), _HEAVIEST)
    effective = float(weights.sum() ** 2 / max(float((weights**2).sum()), 1e-12))
    return Weights(weights, effective, _refusal(effective, area, outside))


def share_outside(reference: Floats, window: Floats, *, seed: int = 0) -> float:
    """Return the share of a window's rows that lie outside the reference.

    Outside is farther from the nearest row of one part of the reference than 199 of 200 rows of
    the other part are, in standardised values.
    """
    neighbors = require("sklearn.neighbors", extra=EXTRA)
    rng = np.random.default_rng(seed)
    centre, spread = reference.mean(axis=0), reference.std(axis=0)
    scale = np.where(spread > 0, spread, 1.0)
    order = rng.permutation(len(reference))[: 2 * _NEIGHBOURS]
    known, held_out = np.array_split((reference[order] - centre) / scale, 2)
    drawn = window[rng.permutation(len(window))[:_NEIGHBOURS]]
    index = neighbors.NearestNeighbors(n_neighbors=1).fit(known)
    own = index.kneighbors(held_out)[0][:, 0]
    theirs = index.kneighbors((drawn - centre) / scale)[0][:, 0]
    return float((theirs > np.quantile(own, 0.995) + 1e-9).mean())


def _refusal(effective: float, area: float, outside: float) -> str:
    if outside > MOST_OUTSIDE:
        return (
            f"outside the support of the reference: {outside:.0%} of the window's rows are farther "
            "from it than its own rows are"
        )
    if area > MOST_TOLD_APART:
        return (
            f"outside the support of the reference: a classifier tells both apart (area {area:.3f})"
        )
    if effective < LEAST_EFFECTIVE:
        return (
            f"outside the support of the reference: its rows that are like the window's are worth "
            f"{effective:.0f}, {LEAST_EFFECTIVE:.0f} are needed"
        )
    return ""

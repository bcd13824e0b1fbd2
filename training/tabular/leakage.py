"""How well each column alone predicts the target: the too good was known too late."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from infra.plugins import require

if TYPE_CHECKING:
    import polars as pl

EXTRA = "classical"
MAX_ROWS = 20_000
FEWEST = 50
FOLDS = 3
DEPTH = 6
LEAF = 5
GIVES_AWAY = 0.98
"""An AUROC or R2 from which a column alone is too good to be true."""
BY_MISSING = 0.8
SUM = 0.9999


@dataclass(frozen=True, slots=True)
class Power:
    """What a column alone is worth."""

    column: str
    metric: str
    """`AUROC`, the mean over classes of each against the others, or `R2`."""
    value: float
    by_missing: float | None = None
    """Of whether it is missing alone, where that is much."""

    @property
    def gives_away(self) -> bool:
        return self.value >= GIVES_AWAY


def powers(frame: pl.DataFrame, target: str, task: str, *, seed: int) -> list[Power]:
    """Return the power of each column by a small tree in folds, the best first.

    Columns of dates, lists and the like, and of text with a value for every row, are passed over.
    """
    known = frame.filter(frame[target].is_not_null())
    if len(known) < FEWEST:
        return []
    draw = np.random.default_rng(seed)
    some = known[np.sort(draw.permutation(len(known))[:MAX_ROWS])]
    truth = _truth(some[target], task)
    if truth is None or len(np.unique(truth)) < 2:
        return []
    found = []
    for name in some.columns:
        values = None if name == target else _values(some[name])
        if values is None:
            continue
        value = _power(values, truth, task, seed=seed)
        gone = np.isnan(values).astype(float)
        by_missing = None
        if 0.01 <= gone.mean() <= 0.99:
            alone = _power(gone, truth, task, seed=seed)
            by_missing = alone if alone >= BY_MISSING else None
        metric = "AUROC" if task == "classification" else "R2"
        found.append(Power(name, metric, value, by_missing))
    return sorted(found, key=lambda each: -each.value)


def contradictions(frame: pl.DataFrame, target: str) -> int:
    """Return how many rows equal another in all columns but the target."""
    polars = require("polars", extra=EXTRA)
    others = [name for name in frame.columns if name != target]
    if not others or not len(frame):
        return 0
    groups = frame.group_by(others).agg(
        polars.col(target).n_unique().alias("\0values"), polars.len().alias("\0rows")
    )
    return int(groups.filter(polars.col("\0values") > 1)["\0rows"].sum())


def sum_of_columns(frame: pl.DataFrame, target: str) -> float | None:
    """Return R2 of a linear model by all numbers, where it is so near 1 that no noise is left."""
    linear = require("sklearn.linear_model", extra=EXTRA)
    names = [name for name in frame.columns if name != target and frame[name].dtype.is_numeric()]
    if not names or not frame[target].dtype.is_numeric():
        return None
    some = frame.select([*names, target]).drop_nulls().head(MAX_ROWS).to_numpy().astype(float)
    some = some[np.isfinite(some).all(axis=1)]
    if len(some) < max(FEWEST, 3 * len(names)):
        return None
    half = len(some) // 2
    model = linear.LinearRegression().fit(some[:half, :-1], some[:half, -1])
    found = float(model.score(some[half:, :-1], some[half:, -1]))
    return found if found >= SUM else None


def _truth(values: pl.Series, task: str) -> NDArray[Any] | None:
    if task == "regression":
        found = np.asarray(values.cast(float, strict=False).to_numpy(), dtype=np.float64)
        return found if np.isfinite(found).all() else None
    known: dict[Any, int] = {}
    return np.array([known.setdefault(each, len(known)) for each in values.to_list()])


def _values(values: pl.Series) -> NDArray[np.float64] | None:
    """Return a column as numbers, categories by their frequency; a missing value is NaN."""
    dtype = values.dtype
    if dtype.is_numeric() or str(dtype) == "Boolean":
        found = np.asarray(values.cast(float).to_numpy(), dtype=np.float64)
        return np.where(np.isfinite(found), found, np.nan)
    if not str(dtype).startswith(("String", "Categorical", "Enum")):
        return None
    given = values.to_list()
    counts: dict[Any, int] = {}
    for each in given:
        counts[each] = counts.get(each, 0) + 1
    if len(counts) > len(given) / 2:
        return None
    order = sorted((each for each in counts if each), key=lambda each: (-counts[each], each))
    codes = {each: float(code) for code, each in enumerate(order)}
    return np.array([codes.get(each, np.nan) for each in given])


def _power(values: NDArray[np.float64], truth: NDArray[Any], task: str, *, seed: int) -> float:
    tree, selection = (
        require(f"sklearn.{name}", extra=EXTRA) for name in ("tree", "model_selection")
    )
    classifies = task == "classification"
    kind = tree.DecisionTreeClassifier if classifies else tree.DecisionTreeRegressor
    model = kind(max_depth=DEPTH, min_samples_leaf=LEAF, random_state=seed)
    counts = np.unique(truth, return_counts=True)[1]
    if classifies and counts.min() < FOLDS:
        common = np.flatnonzero(np.bincount(truth) >= FOLDS)
        kept = np.isin(truth, common)
        if len(common) < 2:
            return 0.5
        values, truth = values[kept], np.unique(truth[kept], return_inverse=True)[1]
    cut = selection.StratifiedKFold if classifies else selection.KFold
    folds = cut(n_splits=FOLDS, shuffle=True, random_state=seed)
    said = selection.cross_val_predict(
        model,
        values.reshape(-1, 1),
        truth,
        cv=folds,
        method="predict_proba" if classifies else "predict",
    )
    from training.tabular import scoring

    return scoring.score("roc_auc" if classifies else "r2", truth, said)

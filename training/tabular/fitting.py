"""Trains a pipeline on a table, and asks it for probabilities or amounts."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.errors import InvalidRequest
from training.tabular import sampling, splitting
from training.tabular.pipelines import CALIBRATION_FOLDS, MODEL
from training.tabular.specification import Classical
from training.tabular.splitting import Places
from training.tabular.table import Table, names_of


def fit(pipeline: Any, table: Table, spec: Classical) -> Any:
    """Train a pipeline in place and return it.

    Args:
        pipeline: as `pipelines.build` makes it.
        table: what is trained on; rows of rare classes may be repeated, or others left out.
        spec: says so, and how rows are divided to calibrate on.

    Raises:
        InvalidRequest: the estimator refuses its parameters or the rows, or they are too few.
    """
    resampling = spec.imbalance.resampling
    if table.classes is not None and resampling != "none":
        table = table.take(sampling.even_out(table.truth, resampling, seed=spec.seed))
    extra = {} if table.weights is None else {f"{MODEL}__sample_weight": table.weights}
    model = pipeline.named_steps[MODEL]
    has_folds = spec.imbalance.calibration != "none" and spec.method in {"time", "group"}
    if has_folds and hasattr(model, "cv"):
        model.cv = _calibrated_on(table, spec)
    try:
        pipeline.fit(table.features, table.labels, **extra)
    except (ValueError, TypeError) as error:
        raise InvalidRequest(f"{type(model).__name__} cannot be trained: {error}") from error
    finally:
        if hasattr(model, "cv"):  # places of rows are nothing to store with a model
            model.cv = CALIBRATION_FOLDS
    return pipeline


def _calibrated_on(table: Table, spec: Classical) -> list[tuple[Places, Places]]:
    """Return what to learn from and to calibrate on: by time, the latest rows alone.

    By groups, what comes of all folds is averaged; by time, that would be of models that know only
    the oldest rows.
    """
    found = splitting.folds(table, spec, count=CALIBRATION_FOLDS)
    return found[-1:] if spec.method == "time" else found


def ask(pipeline: Any, features: Any, classes: tuple[Any, ...] | None) -> NDArray[np.float64]:
    """Return probabilities in the order of `classes`, of shape (rows, classes), or amounts."""
    if classes is None:
        return np.asarray(pipeline.predict(features), dtype=np.float64).reshape(len(features))
    found = np.asarray(pipeline.predict_proba(features), dtype=np.float64)
    known = list(pipeline.classes_)
    if len(known) == len(classes):
        return found
    # A fold may lack a class.
    order = list(names_of(classes))
    whole = np.zeros((len(found), len(classes)))
    for place, label in enumerate(known):
        whole[:, order.index(label)] = found[:, place]
    return whole

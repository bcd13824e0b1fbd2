"""Trains a pipeline on a table, and asks it for probabilities or amounts."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.errors import InvalidRequest
from training.tabular import sampling
from training.tabular.pipelines import MODEL
from training.tabular.table import Table, names_of


def fit(pipeline: Any, table: Table, *, resampling: str = "none", seed: int = 0) -> Any:
    """Train a pipeline in place and return it.

    Args:
        pipeline: as `pipelines.build` makes it.
        table: what is trained on; rows of rare classes may be repeated, or others left out.
        resampling: `none`, `over` or `under`.
        seed: of that.

    Raises:
        InvalidRequest: the estimator refuses its parameters or the rows.
    """
    if table.classes is not None and resampling != "none":
        table = table.take(sampling.even_out(table.truth, resampling, seed=seed))
    extra = {} if table.weights is None else {f"{MODEL}__sample_weight": table.weights}
    try:
        pipeline.fit(table.features, table.labels, **extra)
    except (ValueError, TypeError) as error:
        raise InvalidRequest(
            f"{type(pipeline.named_steps[MODEL]).__name__} cannot be trained: {error}"
        ) from error
    return pipeline


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

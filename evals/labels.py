"""Labels that are probably wrong, by confident learning, before anything is trained on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from evals.statistics.intervals import Floats, Interval, wilson
from infra.errors import InvalidRequest
from infra.plugins import require

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class SuspectLabels:
    """Rows whose label a model that never saw them contradicts."""

    rows: Indices
    """Positions, the most doubtful first."""
    suggested: Indices
    """Class that the model prefers for each of these rows."""
    quality: Floats
    """Of every row, shape (n,), between 0 and 1: how well its label fits."""
    share: Interval
    """Of the rows that are suspect, for a gate with a ceiling."""


def suspect_labels(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, *, level: float = 0.95
) -> SuspectLabels:
    """Return the rows whose labels are probably wrong.

    Confident learning (Northcutt, Jiang & Chuang, JAIR 2021), by cleanlab.

    Args:
        labels: classes as whole numbers from 0, shape (n,).
        probabilities: of each class, shape (n, classes), from a model that was not trained on the
            row (cross-validation); one that was believes every label.
        level: of the interval of the share.

    Raises:
        InvalidRequest: shapes that do not fit, labels that are no classes, rows that do not add
            up to 1.
    """
    given, predicted = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    _check(given, predicted)
    found = require("cleanlab.filter", extra="evals").find_label_issues(
        given, predicted, return_indices_ranked_by="self_confidence", n_jobs=1
    )
    rows: Indices = np.asarray(found, dtype=np.int64)
    quality = require("cleanlab.rank", extra="evals").get_label_quality_scores(given, predicted)
    return SuspectLabels(
        rows,
        predicted[rows].argmax(axis=1).astype(np.int64),
        np.asarray(quality, dtype=np.float64),
        wilson(rows.size, given.size, level=level),
    )


def _check(labels: npt.NDArray[np.int64], probabilities: Floats) -> None:
    if labels.ndim != 1 or probabilities.ndim != 2 or labels.size != probabilities.shape[0]:
        raise InvalidRequest(
            f"Labels of shape {labels.shape!r} and probabilities of shape {probabilities.shape!r}; "
            "give a label and a row of probabilities for each case"
        )
    classes = probabilities.shape[1]
    if (
        labels.size == 0
        or labels.dtype.kind not in "iu"
        or not np.isin(labels, range(classes)).all()
    ):
        raise InvalidRequest(f"Labels must be whole numbers from 0 to {classes - 1}, at least one")
    sums = probabilities.sum(axis=1)
    if not (probabilities >= 0).all() or not np.allclose(sums, 1.0, atol=1e-3):
        wrong = int(np.abs(np.nan_to_num(sums, nan=9.0) - 1).argmax())
        raise InvalidRequest(f"The probabilities of row {wrong} are not shares that add up to 1")

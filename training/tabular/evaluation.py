"""What a trained model comes to: figures beside a constant's, and the loss of each row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra import classical
from infra.classical import ModelFile
from training.tabular import fitting, scoring
from training.tabular.preparation import Material
from training.tabular.searching import Found
from training.tabular.specification import Classical


@dataclass(frozen=True, slots=True, eq=False)
class Errors:
    """The loss of each row, for a diagnosis: 1 or 0 for wrong or right, or the distance."""

    trained_on: NDArray[np.float64]
    out_of_fold: NDArray[np.float64]
    """By models of the same kind that were not trained on the row; the kind was chosen by them."""
    held_out: NDArray[np.float64]
    is_later: bool
    """Whether the rows held out are later than those trained on, or else of the same mixture."""


@dataclass(frozen=True, slots=True, eq=False)
class Said:
    """What a trained pipeline says: probabilities, or amounts."""

    trained_on: NDArray[np.float64]
    held_out: NDArray[np.float64]


def ask(pipeline: Any, material: Material) -> Said:
    """Ask a trained pipeline of all rows."""
    table, test = material.train, material.test
    return Said(
        fitting.ask(pipeline, table.features, table.classes),
        fitting.ask(pipeline, test.features, test.classes),
    )


def evaluate(spec: Classical, material: Material, found: Found, said: Said) -> dict[str, Any]:
    """Return the figures of a model, as `evaluation.json` holds them.

    Args:
        spec: what was asked for.
        material: what it was trained and is measured on.
        found: by which search.
        said: by the pipeline.
    """
    table, test, task = material.train, material.test, spec.task
    nothing = _constant(material)
    return {
        "metric": spec.metric,
        "data": {**material.counts, "divided": spec.method, "drawn": spec.sampling.plan},
        "chosen": {"estimator": found.best.estimator, "parameters": dict(found.best.parameters)},
        "test": scoring.scores(task, test.truth, said.held_out, test.weights),
        "train": scoring.scores(task, table.truth, said.trained_on, table.weights),
        "constant": scoring.scores(task, test.truth, nothing, test.weights),
        "trials": [
            {
                "estimator": each.estimator,
                "parameters": dict(each.parameters),
                "folds": list(each.folds),
                "score": each.score,
                "spread": each.spread,
                "seconds": round(each.seconds, 3),
            }
            for each in (found.baseline, *found.trials)
        ],
    }


def _constant(material: Material) -> NDArray[np.float64]:
    """Return what one says who knows nothing but the rows that are trained on."""
    table, rows = material.train, len(material.test)
    if table.classes is None:
        mean = float(np.average(table.truth, weights=table.weights))
        return np.full(rows, mean)
    counts = np.bincount(table.truth, weights=table.weights, minlength=len(table.classes))
    return np.tile(counts / counts.sum(), (rows, 1))


def errors(
    spec: Classical,
    material: Material,
    said: Said,
    *,
    out_of_fold: NDArray[np.float64],
    model: ModelFile,
) -> Errors:
    """Return the loss of each row, by the classes that the model chooses."""
    table, test = material.train, material.test

    def losses(truth: NDArray[Any], given: NDArray[Any]) -> NDArray[np.float64]:
        chosen = given if model.task == "regression" else classical.decide(given, model)
        return scoring.losses(spec.task, truth, chosen)

    known = ~np.isnan(out_of_fold if out_of_fold.ndim == 1 else out_of_fold[:, 0])
    return Errors(
        losses(table.truth, said.trained_on),
        losses(table.truth[known], out_of_fold[known]),
        losses(test.truth, said.held_out),
        is_later=spec.method == "time" or spec.data.test is not None,
    )

"""What native boosters share: columns of numbers as one matrix, and answers of the stated shape."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.classical import ModelFile
from infra.classical_rows import is_text
from infra.errors import EngineFailed, InvalidRequest
from service.runtimes import Columns

EXTRA = "boosters"


def check_columns(model: ModelFile, features: int) -> None:
    """Refuse a model whose columns are not the booster's features, all of them numbers.

    Raises:
        InvalidRequest: says which is not.
    """
    texts = [each.name for each in model.inputs if is_text(each)]
    if texts:
        raise InvalidRequest(
            f"Column {texts[0]!r} is text, and a booster takes numbers; store the whole pipeline "
            "as ONNX or skops"
        )
    if features != len(model.inputs):
        raise InvalidRequest(
            f"The booster has {features} features, and the model {len(model.inputs)} columns"
        )


def matrix(columns: Columns) -> NDArray[np.float64]:
    """Return the columns side by side, (rows, columns)."""
    return np.column_stack(list(columns.values()))


def answer(found: NDArray[Any], model: ModelFile) -> NDArray[Any]:
    """Return probabilities of all classes, or the values of a regression.

    Raises:
        EngineFailed: the booster gives something else.
    """
    if model.classes is None:
        return found.reshape(-1)
    if found.ndim == 1 and len(model.classes) == 2:
        return np.stack([1 - found, found], axis=1)
    if found.ndim != 2 or found.shape[1] != len(model.classes):
        raise EngineFailed(
            f"The booster gives numbers of shape {found.shape}, and there are "
            f"{len(model.classes)} classes"
        )
    return found


def check_objective(objective: str, model: ModelFile, probable: frozenset[str]) -> None:
    """Refuse a booster that gives no probabilities where classes are wanted, or the reverse.

    Raises:
        InvalidRequest: names its objective.
    """
    if (model.classes is not None) != (objective in probable):
        raise InvalidRequest(
            f"The booster was trained for {objective!r}, which does not fit a "
            f"{model.task} with {len(model.classes or ())} classes"
        )

"""Pipelines of scikit-learn in skops files, of which only reviewed types are loaded."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra import classical_pipelines
from infra.classical import ModelFile, text_of
from infra.errors import EngineFailed, InvalidRequest, first_line
from service.runtimes import Columns, Limits, _files


class SkopsRuntime:
    """A fitted pipeline, from raw columns to probabilities or values."""

    name = "skops"

    def __init__(self, model: ModelFile, pipeline: Any, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.pipeline = pipeline
        self._has_classes = model.classes is not None

    def run(self, columns: Columns) -> NDArray[Any]:
        from training.tabular.columns import as_frame

        try:
            if self._has_classes:
                return np.asarray(self.pipeline.predict_proba(as_frame(columns)))
            return np.asarray(self.pipeline.predict(as_frame(columns)), np.float64).reshape(-1)
        except (ValueError, TypeError, AttributeError, KeyError, IndexError) as error:
            raise EngineFailed(
                f"The model cannot be run on these rows: {first_line(error)}"
            ) from error


def build(model: ModelFile, data: bytes, limits: Limits) -> SkopsRuntime:
    """Load a pipeline whose types all are reviewed, and hold its classes against the model's."""
    pipeline = load(model, data, limits)
    wanted = "predict" if model.classes is None else "predict_proba"
    if not hasattr(pipeline, wanted):
        raise InvalidRequest(f"The file holds a {type(pipeline).__name__} without {wanted}")
    if model.classes is not None:
        has = [text_of(_plain(each)) for each in getattr(pipeline, "classes_", ())]
        if has != [text_of(each) for each in model.classes]:
            raise InvalidRequest(f"The pipeline's classes are {has!r}, not {model.classes!r}")
    return SkopsRuntime(model, pipeline, len(data))


def load(model: ModelFile, data: bytes, limits: Limits) -> Any:
    """Return the object in a skops file.

    Raises:
        InvalidRequest: it is no skops file, unpacks to too much, or holds other types than those
            that both `model.json` names and were reviewed here.
    """
    _files.check(data, wanted="zip", shown="a skops file", max_bytes=limits.max_bytes)
    return classical_pipelines.load(
        data,
        trusted=model.trusted,
        max_bytes=limits.max_bytes,
        reviewed=limits.trusted_types,
    )


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value

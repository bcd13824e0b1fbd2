"""Pipelines of scikit-learn in skops files, of which only reviewed types are loaded."""

from __future__ import annotations

import importlib
import io
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.classical import ModelFile, text_of
from infra.errors import EngineFailed, InvalidRequest
from infra.plugins import require
from service.runtimes import EXTRA, Columns, Limits, _files

REVIEWED = frozenset(
    {
        "collections.OrderedDict",
        "collections.defaultdict",
        "numpy.dtype",
        "lightgbm.basic.Booster",
        "lightgbm.sklearn.LGBMClassifier",
        "lightgbm.sklearn.LGBMRegressor",
        "xgboost.core.Booster",
        "xgboost.sklearn.XGBClassifier",
        "xgboost.sklearn.XGBRegressor",
    }
)
"""Beside these: classes of scikit-learn, and ours. What a file asks for itself opens nothing."""
_OURS = ("training.tabular.",)
_LIBRARY = "sklearn."
MOST_SHOWN = 5


class SkopsRuntime:
    """A fitted pipeline, from raw columns to probabilities or values."""

    name = "skops"

    def __init__(self, model: ModelFile, pipeline: Any, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.pipeline = pipeline
        self._has_classes = model.classes is not None

    def run(self, columns: Columns) -> NDArray[Any]:
        try:
            if self._has_classes:
                return np.asarray(self.pipeline.predict_proba(frame_of(columns)))
            return np.asarray(self.pipeline.predict(frame_of(columns)), np.float64).reshape(-1)
        except (ValueError, TypeError, AttributeError, KeyError, IndexError) as error:
            said = str(error).partition("\n")[0][:300]
            raise EngineFailed(f"The model cannot be run on these rows: {said}") from error


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
    _check_archive(data, limits)
    skops = require("skops.io", extra=EXTRA)
    try:
        needed = skops.get_untrusted_types(data=data)
        _check_types(needed, model, limits)
        return skops.loads(data, trusted=needed)
    except InvalidRequest:
        raise
    except Exception as error:  # whatever a file that was made by hand brings about
        said = str(error).partition("\n")[0][:300]
        raise InvalidRequest(f"The skops file cannot be loaded: {said}") from error


def frame_of(columns: Columns) -> Any:
    """Return a data frame of polars, texts as texts and numbers as they are."""
    polars = require("polars", extra=EXTRA)
    return polars.DataFrame(
        [
            polars.Series(name, values.tolist(), dtype=polars.String)
            if values.dtype.kind == "O"
            else polars.Series(name, values)
            for name, values in columns.items()
        ]
    )


def _check_archive(data: bytes, limits: Limits) -> None:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
    except zipfile.BadZipFile as error:
        raise InvalidRequest("The file says to be a skops file, and is damaged") from error
    if "schema.json" not in {member.filename for member in members}:
        raise InvalidRequest("The file says to be a skops file, and has no schema.json")
    size = sum(member.file_size for member in members)
    if size > limits.max_bytes:
        raise InvalidRequest(
            f"The skops file unpacks to {size:,} bytes, {limits.max_bytes:,} are allowed"
        )


def _check_types(needed: Sequence[str], model: ModelFile, limits: Limits) -> None:
    named = set(model.trusted)
    strange = [
        each for each in needed if each not in named or not _is_reviewed(each, limits.trusted_types)
    ]
    if strange:
        more = f" and {len(strange) - MOST_SHOWN} more" if len(strange) > MOST_SHOWN else ""
        raise InvalidRequest(
            f"The skops file holds types that nobody reviewed: {', '.join(strange[:MOST_SHOWN])}"
            f"{more}; if they are yours, name them in models.trusted_types and in model.json"
        )


def _is_reviewed(name: str, trusted: Sequence[str]) -> bool:
    if name in REVIEWED or name.startswith((*_OURS, *trusted)):
        return True
    if not name.startswith(_LIBRARY):
        return False
    module, _, attribute = name.rpartition(".")
    try:  # a function could be one that runs what it is told
        return isinstance(getattr(importlib.import_module(module), attribute), type)
    except (ImportError, AttributeError):
        return False


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value

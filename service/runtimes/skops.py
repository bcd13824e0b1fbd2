"""Pipelines of scikit-learn in skops files, of which only reviewed types are loaded."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.classical import ModelFile, text_of
from infra.classical_types import is_reviewed
from infra.errors import EngineFailed, InvalidRequest
from infra.plugins import require
from service.runtimes import EXTRA, Columns, Limits, _files

MOST_SHOWN = 5


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
        each
        for each in needed
        if not (each in named and (is_reviewed(each) or each.startswith(limits.trusted_types)))
    ]
    if strange:
        more = f" and {len(strange) - MOST_SHOWN} more" if len(strange) > MOST_SHOWN else ""
        raise InvalidRequest(
            f"The skops file holds types that nobody reviewed: {', '.join(strange[:MOST_SHOWN])}"
            f"{more}; if they are yours, name them in models.trusted_types and in model.json"
        )


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value

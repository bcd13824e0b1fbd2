"""LightGBM's own models, as text, over columns of numbers."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.classical import ModelFile
from infra.classical_releases import refuse_newer
from infra.errors import EngineFailed, InvalidRequest, first_line
from infra.plugins import require
from service.runtimes import Columns, Limits, _boosters, _files

_PROBABLE = frozenset({"binary", "multiclass", "multiclassova"})
_OBJECTIVE = re.compile(rb"^objective=(\w+)", re.MULTILINE)
_FEATURES = re.compile(rb"^max_feature_idx=(\d{1,6})$", re.MULTILINE)
_SIZES = re.compile(rb"^tree_sizes=([\d ]+)$", re.MULTILINE)
_FORMAT = re.compile(rb"^version=v(\d{1,6})$", re.MULTILINE)
_NEWEST_FORMAT = "4.0"
"""What LightGBM 4 writes; it reads those behind it as if they were its own."""
_END = b"\nend of trees\n"


class LightgbmRuntime:
    """One booster."""

    name = "lightgbm"

    def __init__(self, model: ModelFile, booster: Any, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self._model = model
        self._booster = booster
        self._error = require("lightgbm.basic", extra=_boosters.EXTRA).LightGBMError

    def run(self, columns: Columns) -> NDArray[Any]:
        try:
            found = self._booster.predict(_boosters.matrix(columns), num_threads=1)
        except self._error as error:
            raise EngineFailed(
                f"The model cannot be run on these rows: {first_line(error)}"
            ) from error
        return _boosters.answer(np.asarray(found), self._model)


def build(model: ModelFile, data: bytes, limits: Limits) -> LightgbmRuntime:
    """Load a booster and hold it against the columns and classes that the artifact names."""
    _files.check(data, wanted="text", shown="a model of LightGBM", max_bytes=limits.max_bytes)
    objective = _check_text(model, data)
    library = require("lightgbm", extra=_boosters.EXTRA)
    try:
        booster = library.Booster(model_str=data.decode("ascii"))
    except (library.basic.LightGBMError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"LightGBM does not load the model: {first_line(error)}") from error
    _boosters.check_objective(objective, model, _PROBABLE)
    return LightgbmRuntime(model, booster, len(data))


def _check_text(model: ModelFile, data: bytes) -> str:
    """Return the objective of a whole file: LightGBM's own reader trusts what it is given."""
    objective, features, sizes = (
        pattern.search(data) for pattern in (_OBJECTIVE, _FEATURES, _SIZES)
    )
    if objective is None or features is None or sizes is None or _END not in data:
        raise InvalidRequest("The file says to be a model of LightGBM, and is not whole")
    first = data.find(b"\nTree=0\n") + 1
    if first < 1 or first + sum(map(int, sizes[1].split())) > data.index(_END) + 1:
        raise InvalidRequest("The file says to be a model of LightGBM, and its trees are cut")
    written = [(int(number), 0) for number in _FORMAT.findall(data[:first])]
    refuse_newer(written, library="LightGBM's format", installed=_NEWEST_FORMAT)
    _boosters.check_columns(model, int(features[1]) + 1)
    return objective[1].decode()

"""XGBoost's own models, as JSON or UBJSON, over columns of numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray

from infra.classical import ModelFile
from infra.classical_releases import refuse_newer
from infra.errors import EngineFailed, InvalidRequest, first_line
from infra.plugins import require
from service.runtimes import Columns, Limits, _boosters, _files

_PROBABLE = frozenset({"binary:logistic", "multi:softprob"})
_RELEASE = re.compile(rb'"version"\s*:\s*\[\s*(\d{1,6})\s*,\s*(\d{1,6})')
_BINARY_RELEASE = re.compile(rb"\x07version\[#L\0{7}\x03i(.)i(.)i.", re.DOTALL)
"""The same in UBJSON: a list of three numbers of a byte each."""


class XgboostRuntime:
    """One booster; predicting in place takes no lock."""

    name = "xgboost"

    def __init__(self, model: ModelFile, booster: Any, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self._model = model
        self._booster = booster
        self._error = require("xgboost.core", extra=_boosters.EXTRA).XGBoostError

    def run(self, columns: Columns) -> NDArray[Any]:
        try:
            found = self._booster.inplace_predict(
                _boosters.matrix(columns), validate_features=False
            )
        except self._error as error:
            raise EngineFailed(
                f"The model cannot be run on these rows: {first_line(error)}"
            ) from error
        return _boosters.answer(found, self._model)


def build(model: ModelFile, data: bytes, limits: Limits) -> XgboostRuntime:
    """Load a booster and hold it against the columns and classes that the artifact names."""
    _files.check(data, wanted="json", shown="a model of XGBoost", max_bytes=limits.max_bytes)
    library = require("xgboost", extra=_boosters.EXTRA)
    refuse_newer(_releases(data), library="XGBoost", installed=library.__version__)
    booster = library.Booster({"nthread": 1})
    try:
        booster.load_model(bytearray(data))
        booster.set_param({"nthread": 1})
        objective = json.loads(booster.save_config())["learner"]["objective"]["name"]
    except (library.core.XGBoostError, KeyError, ValueError) as error:
        raise InvalidRequest(f"XGBoost does not load the model: {first_line(error)}") from error
    _boosters.check_columns(model, int(booster.num_features()))
    _boosters.check_objective(objective, model, _PROBABLE)
    return XgboostRuntime(model, booster, len(data))


def _releases(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield major and minor number of what wrote the file, wherever it says them."""
    for major, minor in _RELEASE.findall(data):
        yield int(major), int(minor)
    for major, minor in _BINARY_RELEASE.findall(data):
        yield major[0], minor[0]

"""Runtimes of classical models: plug-ins that load one file format and answer rows with it.

A plug-in is a file named as the format in `model.json`, with `build(model, data, limits) ->
Runtime`. The laws, run over each by `tests/contracts/test_runtimes.py`: a batch gives what its
rows give one by one, in their order; probabilities are between 0 and 1 and add up to 1; a file of
another format, a damaged one, one that is too large, and whatever could run code are refused with
`InvalidRequest` before anything of it is loaded.

    >>> import numpy as np
    >>> class Threshold:
    ...     name = "threshold"
    ...     size_bytes = 8
    ...     def run(self, columns):
    ...         is_high = columns["age"] >= 18.0
    ...         return np.stack([1.0 - is_high, 1.0 * is_high], axis=1)
    >>> Threshold().run({"age": np.array([17.0, 44.0])}).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, cast

from numpy.typing import NDArray

from infra.classical import ModelFile
from infra.errors import InvalidRequest
from infra.plugins import available, load

EXTRA = "classical"
FOLDER = "service.runtimes"
Columns: TypeAlias = Mapping[str, NDArray[Any]]
"""By name, the raw columns of a model, (rows,) each, as `infra.classical_rows.encode` makes them:
numbers as float64, NaN where missing, and texts as objects, empty where missing."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a model's file may be."""

    max_bytes: int = 256 * 2**20
    """Of the file, and of what it unpacks to."""
    trusted_types: tuple[str, ...] = ()
    """Beginnings of dotted names that may be loaded, beside those that were reviewed."""


class Runtime(Protocol):
    """A model that is loaded; used from several threads at once."""

    @property
    def name(self) -> str:
        """The plug-in's."""
        ...

    @property
    def size_bytes(self) -> int:
        """Of the file; what the model counts for among those that are loaded."""
        ...

    def run(self, columns: Columns) -> NDArray[Any]:
        """Return probabilities, (rows, classes), or of a regression values, (rows,).

        Raises:
            EngineFailed: the model cannot be run on these rows.
        """
        ...


def open_runtime(model: ModelFile, data: bytes, limits: Limits) -> Runtime:
    """Load a model with the plug-in of its format.

    Raises:
        InvalidRequest: there is no runtime for it, or its file is not what it says to be.
        MissingDependency: the packages of the extra `classical` are not installed.
    """
    if model.format not in available(FOLDER):
        raise InvalidRequest(
            f"Models of format {model.format!r} cannot be served; "
            f"there are {', '.join(available(FOLDER))}"
        )
    return cast("Runtime", load(FOLDER, model.format)(model, data, limits))

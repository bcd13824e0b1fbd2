"""A column as drift detectors read it: numbers, categories or vectors, with what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from infra.errors import InvalidRequest
from infra.plugins import require

Kind: TypeAlias = Literal["numbers", "categories", "vectors", "times", "spans", "nothing"]
Floats: TypeAlias = npt.NDArray[np.float64]
EXTRA = "monitoring"


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """The values of one feature, a row each; knows nothing of prompts or models."""

    kind: Kind
    data: npt.NDArray[Any]
    """Numbers and times: float64 (rows,), NaN where missing; categories: codes (rows,), -1 where
    missing; vectors: (rows, dimension), NaN where missing; spans (lengths of time and times of day,
    which are no moments): 0, NaN where missing."""
    labels: tuple[str, ...] = ()
    """What the codes of categories stand for, or how the dimensions of vectors are called."""

    @classmethod
    def of(cls, values: Any, kind: Kind | None = None) -> Column:
        """Return a column of an array, a list or an Arrow array; the kind follows from the type.

        Text and booleans are categories, 2-dimensional arrays and lists of numbers are vectors,
        other lists categories by their text, dates are moments (midnight in UTC), and what is not
        finite counts as missing. `kind` makes categories of numbers that are
        codes.

        Raises:
            InvalidRequest: the values cannot be of the kind that is asked for.
        """
        array = values if isinstance(values, np.ndarray) else None
        if array is not None and array.ndim == 2 and array.dtype.kind in "fiu":
            return cls("vectors", _finite(array.astype(np.float64, copy=True)))
        if array is not None and array.ndim == 1 and array.dtype.kind in "fiu" and kind is None:
            return cls("numbers", _finite(array.astype(np.float64, copy=True)))
        found = _of_arrow(_to_arrow(values), kind)
        if kind is not None and found.kind not in {kind, "nothing"}:
            raise InvalidRequest(f"A column of {found.kind} cannot be read as {kind!r}")
        return found

    def __len__(self) -> int:
        return len(self.data)

    @property
    def present(self) -> npt.NDArray[Any]:
        """The values that are there, in order."""
        return self.data[~self.is_missing()]

    @property
    def dimension(self) -> int:
        """Of vectors; 1 for everything else."""
        return int(self.data.shape[1]) if self.data.ndim == 2 else 1

    def is_missing(self) -> npt.NDArray[np.bool_]:
        """Return whether each row has no value, shape (rows,)."""
        if self.kind == "nothing":
            return np.ones(len(self.data), dtype=np.bool_)
        if self.kind == "categories":
            return np.asarray(self.data < 0)
        if self.kind == "vectors":
            return np.asarray(np.isnan(self.data).any(axis=1))
        return np.asarray(np.isnan(self.data))

    def missingness(self) -> Column:
        """Return the column that says of each row whether its value is missing."""
        return Column("categories", self.is_missing().astype(np.int32), ("present", "missing"))


def empty(rows: int) -> Column:
    """Return a column without a value."""
    return Column("nothing", np.full(rows, np.nan))


def _finite(array: Floats) -> Floats:
    array[~np.isfinite(array)] = np.nan
    return array


def _to_arrow(values: Any) -> Any:
    pa = require("pyarrow", extra=EXTRA)
    if isinstance(values, pa.ChunkedArray):
        return values.combine_chunks()
    if isinstance(values, pa.Array):
        return values
    try:
        return pa.array(values, from_pandas=True)
    except (pa.ArrowException, OverflowError):
        # Values of several types are only good for being told apart.
        return pa.array([None if value is None else str(value) for value in values], pa.string())


def _of_arrow(array: Any, kind: Kind | None) -> Column:
    types = require("pyarrow", extra=EXTRA).types
    held = array.type
    if array.null_count == len(array):
        return empty(len(array))
    is_list = types.is_fixed_size_list(held) or types.is_list(held) or types.is_large_list(held)
    if is_list and (_is_number(held.value_type) or types.is_boolean(held.value_type)):
        return _vectors(array)
    if _is_number(held) and kind != "categories":
        return Column("numbers", _finite(_floats(array)))
    if types.is_timestamp(held) or types.is_date(held):
        return Column("times", _seconds(array))
    if types.is_temporal(held) or types.is_interval(held):
        missing = array.is_null().to_numpy(zero_copy_only=False)
        return Column("spans", np.where(missing, np.nan, 0.0))
    return _categories(array)


def _is_number(held: Any) -> bool:
    types = require("pyarrow", extra=EXTRA).types
    return bool(types.is_integer(held) or types.is_floating(held) or types.is_decimal(held))


def _floats(array: Any) -> Floats:
    pa = require("pyarrow", extra=EXTRA)
    floats = array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return np.array(floats, dtype=np.float64)


def _seconds(array: Any) -> Floats:
    pa = require("pyarrow", extra=EXTRA)
    zone = array.type.tz if pa.types.is_timestamp(array.type) else None
    whole = array.cast(pa.timestamp("us", tz=zone), safe=False).cast(pa.int64())
    return _floats(whole) / 1e6


def _categories(array: Any) -> Column:
    pa = require("pyarrow", extra=EXTRA)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if not pa.types.is_string(array.type):
        try:
            array = array.cast(pa.string())
        except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
            array = pa.array([None if v is None else str(v) for v in array.to_pylist()])
    encoded = array.dictionary_encode()
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
    return Column("categories", codes, tuple(encoded.dictionary.to_pylist()))


def _vectors(array: Any) -> Column:
    """Return rows of the commonest length; rows of another count as missing."""
    rows: Sequence[Any] = array.to_numpy(zero_copy_only=False)
    lengths = np.array([-1 if row is None else len(row) for row in rows])
    sizes, counts = np.unique(lengths[lengths >= 0], return_counts=True)
    width = int(sizes[counts.argmax()])
    data = np.full((len(rows), width), np.nan)
    fits = lengths == width
    if fits.any():
        data[fits] = np.stack([np.asarray(row, dtype=np.float64) for row in rows[fits]])
    return Column("vectors", _finite(data))

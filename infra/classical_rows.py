"""Rows as a classical model takes them: one encoding of raw values for training and for serving."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from infra.classical import Column, text_of
from infra.errors import InvalidRequest

MISSING_TEXT = ""
"""How a missing value of a column of text reads; a missing number is NaN."""
MAX_SHOWN = 80

Values: TypeAlias = Sequence[Any] | NDArray[Any]


def is_text(column: Column) -> bool:
    """Whether the model is given the column as text; else as numbers, true as 1 and false as 0.

    Categories are text whatever they are in the data: 3 reads `3`, true reads `true`.
    """
    return column.type == "string" or column.categories is not None


def encode(values: Values, column: Column) -> NDArray[Any]:
    """Return a column as the pipeline and the graph take it, of shape (rows,).

    Numbers are float64, text is `object`. Training encodes by this function as well, so that the
    same values mean the same there and here. A graph whose input is float32 is given its rounding.

    Args:
        values: None, and NaN among numbers, is a missing value.
        column: what the values must be.

    Raises:
        InvalidRequest: a value is of another type, infinite, or missing where none may be; names
            the first such row, counted from 0.
    """
    if is_text(column):
        return _texts(values, column)
    if isinstance(values, np.ndarray) and values.dtype.kind in "fiu":
        return _array(values, column)
    return _numbers(values, column)


def encode_rows(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]
) -> dict[str, NDArray[Any]]:
    """Return rows by column name as one array for each column, in the model's order.

    Raises:
        InvalidRequest: a column is unknown or absent, or as `encode` does.
    """
    known = {column.name: column for column in columns}
    for place, row in enumerate(rows):
        unknown = row.keys() - known.keys()
        if unknown:
            names = ", ".join(map(repr, known))
            raise InvalidRequest(f"Row {place} has no column {min(unknown)!r}; there are {names}")
        absent = [each.name for each in columns if each.name not in row and not each.nullable]
        if absent:
            raise InvalidRequest(f"Row {place} lacks {absent[0]!r}, which may not be missing")
    return {name: encode([row.get(name) for row in rows], known[name]) for name in known}


def _array(values: NDArray[Any], column: Column) -> NDArray[Any]:
    if column.type == "bool":
        wrong = ~np.isin(values, (0, 1)) & ~np.isnan(values.astype(np.float64))
        _refuse_first(wrong, values, column, "is neither true nor false")
    if column.type == "int64" and values.dtype.kind == "f":
        known = np.nan_to_num(values, nan=0.0, posinf=0.5, neginf=0.5)
        _refuse_first(known != np.floor(known), values, column, "is no whole number")
    found = values.astype(np.float64)
    _refuse_first(np.isinf(found), values, column, "is not finite")
    if not column.nullable:
        _refuse_first(np.isnan(found), values, column, "may not be missing")
    return found


def _plain_numbers(values: Values, column: Column) -> NDArray[Any] | None:
    """Return numbers of which none needs a closer look, as most are; else nothing."""
    if not {*map(type, values)} <= _PLAIN[column.type]:
        return None
    try:
        found = np.array(values, dtype=np.float64)
    except OverflowError:
        return None
    return found if np.isfinite(found).all() else None


def _numbers(values: Values, column: Column) -> NDArray[Any]:
    plain = _plain_numbers(values, column)
    if plain is not None:
        return plain
    takes = _TAKES[column.type]
    found = np.empty(len(values), dtype=np.float64)
    for place, value in enumerate(values):
        given = value.item() if isinstance(value, np.generic) else value
        if given is None or given != given:
            if not column.nullable:
                raise _refused(place, given, column, "may not be missing")
            found[place] = math.nan
            continue
        if not takes(given):
            raise _refused(place, given, column, f"is no {column.type}")
        try:
            found[place] = given
        except OverflowError:
            raise _refused(place, given, column, "is not finite") from None
        if math.isinf(found[place]):
            raise _refused(place, given, column, "is not finite")
    return found


def _texts(values: Values, column: Column) -> NDArray[Any]:
    takes = _TAKES[column.type]
    found = np.empty(len(values), dtype=object)
    for place, value in enumerate(values):
        given = value.item() if isinstance(value, np.generic) else value
        if given is None or given != given or given == MISSING_TEXT:
            if not column.nullable:
                raise _refused(place, given, column, "may not be missing")
            found[place] = MISSING_TEXT
        elif not takes(given):
            raise _refused(place, given, column, f"is no {column.type}")
        else:
            found[place] = _category(given, column)
    try:
        "".join(found).encode()
    except UnicodeEncodeError:
        raise InvalidRequest(f"{column.name!r} holds text that is not Unicode") from None
    return found


def _category(value: Any, column: Column) -> str:
    """Return the text of a value; a whole number reads the same however it was written."""
    if column.type == "string":
        return str(value)
    return text_of(int(value) if column.type == "int64" else value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return _is_number(value) and (isinstance(value, int) or value.is_integer())


_TAKES: Mapping[str, Callable[[Any], bool]] = {
    "float64": _is_number,
    "int64": _is_whole,
    "bool": lambda value: isinstance(value, bool),
    "string": lambda value: isinstance(value, str),
}


_PLAIN: Mapping[str, frozenset[type]] = {
    "float64": frozenset({float, int}),
    "int64": frozenset({int}),
    "bool": frozenset({bool}),
}
"""Types of values that are what they seem."""


def _refuse_first(wrong: NDArray[np.bool_], values: NDArray[Any], column: Column, why: str) -> None:
    if wrong.any():
        place = int(np.argmax(wrong))
        raise _refused(place, values[place].item(), column, why)


def _refused(place: int, value: Any, column: Column, why: str) -> InvalidRequest:
    shown = repr(value)
    shown = shown if len(shown) <= MAX_SHOWN else f"{shown[:MAX_SHOWN]}..."
    return InvalidRequest(f"Row {place}: {column.name!r} {why}, and is {shown}")

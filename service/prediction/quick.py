"""One row as most are, read without a closer look; what is otherwise goes the long way."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from operator import itemgetter, le
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from infra.classical import Column, Kind, text_of
from infra.classical_rows import MISSING_TEXT, is_text

_WHOLE = 2.0**53
"""Up to here a float holds every whole number."""
_TYPES: Mapping[Kind, type] = {"float64": float, "int64": int, "string": str, "bool": bool}
_DATATYPES: Mapping[Kind, frozenset[str]] = {
    "float64": frozenset({"FP16", "FP32", "FP64"}),
    "int64": frozenset({"INT64"}),
    "string": frozenset({"BYTES"}),
    "bool": frozenset({"BOOL"}),
}
"""Datatypes whose values need no look but at their type."""
_SHAPES = ([1], [1, 1])
_FIELDS = 4
"""Of a tensor in JSON: name, datatype, shape, data."""

VALUE_BYTES = 64
"""Of a number or a text and its place in a list, beside the text's letters."""


class Row(Mapping[str, NDArray[Any]]):
    """The columns of a row in which there is nothing to tell of; arrays are made when needed."""

    def __init__(self, quick: Quick, numbers: Sequence[Any], texts: Sequence[str]) -> None:
        self.quick = quick
        self.numbers = numbers
        self.texts = texts

    @cached_property
    def _arrays(self) -> Mapping[str, NDArray[Any]]:
        return self.quick.arrays([self])

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    @property
    def size_bytes(self) -> int:
        """About what it takes in memory."""
        return VALUE_BYTES * (len(self.numbers) + len(self.texts)) + sum(map(len, self.texts))

    @property
    def given(self) -> dict[str, Any]:
        """The same as `columns.row_values` tells it."""
        told = dict(zip(self.quick.number_names, self.numbers, strict=True))
        told |= zip(self.quick.text_names, self.texts, strict=True)
        if self.quick.is_nullable:
            for name, value in told.items():
                if value == MISSING_TEXT or value != value:
                    told[name] = None
        return told


@dataclass(frozen=True, slots=True)
class _Usual:
    """How the tensors of a request looked that could be read; the next one's will, too."""

    looked: tuple[tuple[Any, ...], ...]
    """Names, datatypes and shapes."""
    numbers: _Pick
    texts: _Pick
    """Take from the values of such a request those of a group of columns, in the model's order."""


_Pick: TypeAlias = Callable[[Sequence[Any]], Sequence[Any]]
_fields = itemgetter("name", "datatype", "shape", "data")


def _picking(places: Sequence[int]) -> _Pick:
    if len(places) > 1:  # of one it would return the value itself
        return itemgetter(*places)
    return lambda values: [values[place] for place in places]


class _AnyText:
    """Stands for the categories of a column that has none."""

    def get(self, text: str) -> str | None:
        return text or None


class Quick:
    """Reads one row of one model; None means that the long way has to say what is the matter.

    What it reads, the long way would read alike, and without a warning.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        """Take the model's columns; all of them come with the row."""
        numbers = [each for each in columns if not is_text(each)]
        texts = [each for each in columns if is_text(each)]
        self.number_names = [each.name for each in numbers]
        self.text_names = [each.name for each in texts]
        self.is_nullable = any(each.nullable for each in columns)
        self._number_types = [_TYPES[each.type] for each in numbers]
        self._text_types = [_TYPES[each.type] for each in texts]
        ranges = [_range(each) for each in numbers]
        self._lows, self._highs = [low for low, _ in ranges], [high for _, high in ranges]
        self._known = [_known(each) for each in texts]
        self._nullable = {each.name for each in columns if each.nullable}
        places = {each.name: at for group in (numbers, texts) for at, each in enumerate(group)}
        self._order = [(each.name, is_text(each), places[each.name]) for each in columns]
        self._datatypes = {each.name: _DATATYPES[each.type] for each in columns}
        self._usual: _Usual | None = None

    @classmethod
    def of(cls, columns: Sequence[Column]) -> Quick | None:
        """Return what reads such rows; None where they always need a closer look."""
        has_number_as_text = any(each.type == "float64" and is_text(each) for each in columns)
        return None if has_number_as_text else cls(columns)

    def of_tensors(self, inputs: Sequence[Any]) -> Row | None:
        """Read the inputs of a request of the Open Inference Protocol."""
        try:
            names, datatypes, shapes, data = zip(*map(_fields, inputs), strict=True)
            if {*map(len, inputs)} != {_FIELDS} or {*map(type, data)} != {list}:
                return None
            values = [value for (value,) in data]
        except (KeyError, TypeError, ValueError):  # more or fewer values than one, too
            return None
        usual = self._usual
        if usual is None or usual.looked != (names, datatypes, shapes):
            usual = self._planned(names, datatypes, shapes)
            if usual is None:
                return None
        if {*map(type, chain.from_iterable(shapes))} != {int}:  # true and 1.0 equal 1
            return None
        return self._row(usual.numbers(values), usual.texts(values))

    def _planned(
        self, names: tuple[Any, ...], datatypes: tuple[Any, ...], shapes: tuple[Any, ...]
    ) -> _Usual | None:
        """Return how to read tensors that look so, from now on; None if they go the long way."""
        kinds = self._datatypes
        try:
            is_plain = (
                len(names) == len(kinds)
                and {*names} == kinds.keys()
                and all(kind in kinds[name] for name, kind in zip(names, datatypes, strict=True))
                and all(shape in _SHAPES for shape in shapes)
            )
        except TypeError:  # a name or a datatype that is no text
            return None
        if not is_plain:
            return None
        self._usual = _Usual(
            (names, datatypes, shapes),
            _picking([names.index(each) for each in self.number_names]),
            _picking([names.index(each) for each in self.text_names]),
        )
        return self._usual

    def of_row(self, row: Any) -> Row | None:
        """Read an object of JSON by column name."""
        if type(row) is not dict or row.keys() != self._datatypes.keys():
            return None
        return self._row(
            [row[name] for name in self.number_names], [row[name] for name in self.text_names]
        )

    def _row(self, numbers: Sequence[Any], given: Sequence[Any]) -> Row | None:
        if [*map(type, numbers)] != self._number_types:
            numbers = self._with_floats(numbers)
            if [*map(type, numbers)] != self._number_types:
                return None
        is_usual = all(map(le, self._lows, numbers)) and all(map(le, numbers, self._highs))
        if not is_usual and not (self.is_nullable and self._fit(numbers)):
            return None  # infinite, or what training never saw
        texts = self._texts(given)
        return None if texts is None else Row(self, numbers, texts)

    def _with_floats(self, numbers: Sequence[Any]) -> list[Any]:
        """Return whole numbers as floats where these are meant, and NaN for what is missing."""
        found = []
        for name, value, kind in zip(self.number_names, numbers, self._number_types, strict=True):
            if kind is float and type(value) is int and -_WHOLE <= value <= _WHOLE:
                found.append(float(value))
            elif value is None and kind is float and name in self._nullable:
                found.append(math.nan)
            else:
                found.append(value)
        return found

    def _fit(self, numbers: Sequence[Any]) -> bool:
        limits = zip(self._lows, numbers, self._highs, strict=True)
        return all(value != value or low <= value <= high for low, value, high in limits)

    def _texts(self, values: Sequence[Any]) -> list[str] | None:
        if [*map(type, values)] == self._text_types:
            texts = [known.get(value) for known, value in zip(self._known, values, strict=True)]
            return None if None in texts else texts
        texts = []
        for at, value in enumerate(values):
            if value is None and self.text_names[at] in self._nullable:
                texts.append(MISSING_TEXT)
            elif type(value) is self._text_types[at]:
                texts.append(self._known[at].get(value))
            else:
                return None
        return None if None in texts else texts

    def arrays(self, rows: Sequence[Row]) -> Mapping[str, NDArray[Any]]:
        """Return several rows below one another, as a runtime takes them, in the model's order."""
        numbers, texts = [each.numbers for each in rows], [each.texts for each in rows]
        both = (
            np.array([*zip(*numbers, strict=True)], np.float64).reshape(-1, len(rows)),
            np.array([*zip(*texts, strict=True)], np.object_).reshape(-1, len(rows)),
        )
        return {name: both[is_text][at] for name, is_text, at in self._order}


def _range(column: Column) -> tuple[float, float]:
    """Return which numbers are read: those that training saw, and that a float holds exactly."""
    most = _WHOLE if column.type == "int64" else sys.float_info.max
    low = -most if column.low is None else max(-most, column.low)
    high = most if column.high is None else min(most, column.high)
    return low, high


def _known(column: Column) -> Any:
    """Return what tells the text of a value."""
    if column.categories is None:
        return _AnyText()
    kind = _TYPES[column.type]
    return {each: text_of(each) for each in column.categories if type(each) is kind}

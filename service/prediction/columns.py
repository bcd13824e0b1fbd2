"""Rows as the columns of a model: what training never saw is told, what cannot be is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from infra.classical import Column, ModelFile, text_of
from infra.classical_rows import MISSING_TEXT, encode, encode_rows, is_text
from infra.errors import InvalidRequest, TooLarge
from service.prediction.quick import Quick, Row

if TYPE_CHECKING:
    from service.prediction.joining import Joined, Joins

MOST_SHOWN = 5
FEW_ROWS = 8
"""Up to here a loop is faster than NumPy."""
WarningKind = Literal["unknown_category", "out_of_range", "unknown_key", "too_early", "too_old"]


@dataclass(frozen=True, slots=True)
class Warned:
    """A value that training never saw, or a key without values of a view."""

    row: int
    column: str
    kind: WarningKind


@dataclass(frozen=True, slots=True)
class Table:
    """What a model is asked about."""

    rows: int
    columns: Mapping[str, NDArray[Any]]
    """As a runtime takes them, in the model's order."""
    warnings: Sequence[Warned] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    """By view, what was joined."""
    joined: Joined | None = None
    """By which keys and times."""


@dataclass(frozen=True, slots=True, eq=False)
class Reader:
    """Reads what one model is asked, and refuses what is not its columns."""

    model: ModelFile
    max_rows: int
    refuses_unknown: bool = False
    joins: Joins | None = None
    """Of a model that takes columns from views."""
    asked: Sequence[Column] = field(init=False)
    """What is given with a row: the model's own columns, and those of the join."""
    quick: Quick | None = field(init=False)
    """Reads a single row, where nothing is joined."""
    _own: Sequence[Column] = field(init=False)
    _columns: Mapping[str, Column] = field(init=False)
    _seen: Mapping[str, frozenset[str]] = field(init=False)
    _ranges: Mapping[str, tuple[float, float]] = field(init=False)

    def __post_init__(self) -> None:
        inputs = self.model.inputs
        seen = {
            each.name: frozenset([*map(text_of, each.categories), *_if_missing(each)])
            for each in inputs
            if each.categories is not None
        }
        ranges = {
            each.name: (
                -np.inf if each.low is None else each.low,
                np.inf if each.high is None else each.high,
            )
            for each in inputs
            if not is_text(each) and (each.low is not None or each.high is not None)
        }
        joins, joined = self.joins, self.model.joined
        own = tuple(each for each in inputs if joins is None or each.name not in joined)
        asked = own if joins is None else (*own, *joins.asked)
        object.__setattr__(self, "asked", asked)
        object.__setattr__(self, "quick", Quick.of(own) if joins is None else None)
        object.__setattr__(self, "_own", own)
        object.__setattr__(self, "_columns", {each.name: each for each in asked})
        object.__setattr__(self, "_seen", seen)
        object.__setattr__(self, "_ranges", ranges)

    def of_rows(self, rows: Sequence[Any]) -> Table:
        """Read objects of JSON, one a row; what may be missing may be left out.

        Raises:
            InvalidRequest: names the row and the column that are wrong.
            TooLarge: more rows than are allowed.
        """
        if len(rows) == 1 and self.quick is not None:
            read = self.quick.of_row(rows[0])
            if read is not None:
                return Table(1, read)
        self._check_count(len(rows))
        for place, row in enumerate(rows):
            if type(row) is not dict:
                raise InvalidRequest(f"Row {place} is no object of columns", parameter="rows")
        if self.joins is None:
            return self._table(len(rows), encode_rows(rows, self._own))
        own, given = self.joins.divided(rows)
        return self._joined(
            len(rows), encode_rows(own, self._own), self.joins.run(len(rows), given)
        )

    def of_values(self, rows: int, given: Mapping[str, Any]) -> Table:
        """Read columns: lists as JSON has them, or arrays; times of the join also as polars'.

        Raises:
            InvalidRequest: a column is missing, strange, or holds what it cannot.
            TooLarge: more rows than are allowed.
        """
        self._check_count(rows)
        if given.keys() != self._columns.keys():
            self._check_columns(given)
        columns = {each.name: encode(given[each.name], each) for each in self._own}
        if self.joins is None:
            return self._table(rows, columns)
        return self._joined(rows, columns, self.joins.run(rows, given))

    def _check_count(self, rows: int) -> None:
        if rows < 1:
            raise InvalidRequest("There is no row to predict for")
        if rows > self.max_rows:
            raise TooLarge(
                f"{rows:,} rows in one request, {self.max_rows:,} are allowed; send several, or "
                "predict in a job: ragstone models predict"
            )

    def _joined(self, rows: int, own: Mapping[str, NDArray[Any]], joined: Joined) -> Table:
        whole = {**own, **joined.columns}
        columns = {each.name: whole[each.name] for each in self.model.inputs}
        table = self._table(rows, columns, joined.versions)
        missed = [Warned(row, key, why) for row, key, why in joined.missed]
        warnings = [*table.warnings, *missed]
        return replace(table, warnings=warnings, versions=joined.versions, joined=joined)

    def _table(
        self,
        rows: int,
        columns: Mapping[str, NDArray[Any]],
        versions: Mapping[str, str] = MappingProxyType({}),
    ) -> Table:
        warnings: list[Warned] = []
        for name, seen in self._seen.items():
            texts = columns[name].tolist()
            if not seen.issuperset(texts):
                strange = [place for place, text in enumerate(texts) if text not in seen]
                if self.refuses_unknown:
                    raise self._unknown(strange[0], name, texts[strange[0]], versions)
                warnings += [Warned(place, name, "unknown_category") for place in strange]
        for name, (low, high) in self._ranges.items():
            warnings += [
                Warned(place, name, "out_of_range") for place in _beyond(columns[name], low, high)
            ]
        return Table(rows, columns, warnings)

    def _unknown(
        self, row: int, name: str, value: str, versions: Mapping[str, str]
    ) -> InvalidRequest:
        said = f"Row {row}: {name!r} is {_shown(value)}, which is none of the categories that the "
        for view in self.model.views:
            if name in view.features and view.followed in versions:
                said += f"model knows; {versions[view.followed]} has it of the row's key"
                return InvalidRequest(said, parameter=view.asked_key)
        return InvalidRequest(f"{said}model knows", parameter=name)

    def _check_columns(self, given: Mapping[str, Any]) -> None:
        optional = frozenset() if self.joins is None else self.joins.optional
        missing = [name for name in self._columns if name not in given and name not in optional]
        strange = sorted(given.keys() - self._columns.keys())
        if not missing and not strange:
            return
        said = [f"is not given {_listed(missing)}"] if missing else []
        said += [f"has no {_listed(strange)}"] if strange else []
        raise InvalidRequest(
            f"The model {' and '.join(said)}; its inputs are {_listed(list(self._columns))}",
            parameter="inputs",
        )


def _beyond(values: NDArray[Any], low: float, high: float) -> list[int]:
    """Return the places of values beyond a range; NaN is in any."""
    if len(values) <= FEW_ROWS:
        return [at for at, value in enumerate(values.tolist()) if value < low or value > high]
    places: list[int] = np.flatnonzero((values < low) | (values > high)).tolist()
    return places


def _if_missing(column: Column) -> list[str]:
    return [MISSING_TEXT] if column.nullable else []


def joined(tables: Sequence[Mapping[str, NDArray[Any]]]) -> Mapping[str, NDArray[Any]]:
    """Return the columns of several tables below one another."""
    if len(tables) == 1:
        return tables[0]
    rows = [each for each in tables if type(each) is Row]
    if len(rows) == len(tables):
        return rows[0].quick.arrays(rows)
    return {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}


def row_values(table: Table, at: int, columns: Sequence[Column]) -> dict[str, Any]:
    """Return one row as it came: whole numbers whole, what is missing None, categories as text."""
    if type(table.columns) is Row:
        return table.columns.given
    return {each.name: _raw(table.columns[each.name][at], each) for each in columns}


def _raw(value: Any, column: Column) -> Any:
    if is_text(column):
        return None if value == MISSING_TEXT else value
    if np.isnan(value):
        return None
    kinds = {"int64": int, "bool": bool}
    return kinds.get(column.type, float)(value)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name[:80]) for name in names[:MOST_SHOWN])
    return f"{shown} and {len(names) - MOST_SHOWN} more" if len(names) > MOST_SHOWN else shown


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def flat(values: Sequence[Any], shape: Sequence[int]) -> Sequence[Any]:
    """Return the elements of nested lists, which are nested as the shape says, or not at all.

    Raises:
        InvalidRequest: the lists are of another shape.
    """
    total = 1
    for size in shape:
        total *= size
    level, depth = values, 0
    while level and type(level[0]) is list:
        depth += 1
        if (
            depth >= len(shape)
            or {len(each) for each in level if type(each) is list} != {shape[depth]}
            or not all(type(each) is list for each in level)
        ):
            raise InvalidRequest(f"The data is not nested as its shape {list(shape)!r} says")
        level = list(chain.from_iterable(level))
    if len(level) != total:
        raise InvalidRequest(
            f"The data has {len(level):,} elements, and its shape {list(shape)!r} says {total:,}"
        )
    return level

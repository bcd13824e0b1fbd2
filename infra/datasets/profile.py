"""What is in a dataset's columns: nulls, distinct values, ranges, quantiles, frequent values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from infra.errors import NotFound

Kind = Literal["number", "text", "boolean", "time", "binary", "nested", "null"]

STEPS = 200
"""Quantiles are given at 0, 1/200, ..., 1."""
BINS = 30
TOP = 100
MAX_TEXT = 100
"""Characters of a value that a profile shows."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """The distribution of finite numbers."""

    count: int
    minimum: float
    maximum: float
    mean: float | None
    """`None` where it exceeds a float."""
    std: float | None
    """Of a sample; `None` for fewer than two values."""
    quantiles: tuple[float, ...]
    """201 values: at 0, 0.005, ..., 1."""
    exact: bool
    """Otherwise the rank of a quantile is off by less than 1 %, and so are the bins."""
    edges: tuple[float, ...]
    """Of bins of equal width; one more than there are bins."""
    counts: tuple[int, ...]

    def quantile(self, share: float) -> float:
        """Return a quantile, `share` between 0 and 1."""
        return float(np.interp(share * STEPS, range(STEPS + 1), self.quantiles))


@dataclass(frozen=True, slots=True)
class Top:
    value: Any
    """A JSON value; long text is cut and ends with a hash of the whole."""
    count: int


@dataclass(frozen=True, slots=True)
class Column:
    """The profile of one column."""

    name: str
    type: str
    """Arrow's name of it."""
    kind: Kind
    nulls: int
    distinct: int | None = None
    """Values other than null; `None` for nested columns."""
    distinct_exact: bool = True
    """Otherwise the standard error is below 2.3 %."""
    minimum: Any = None
    """A number, or ISO 8601 of a time; of text the first in code point order, cut."""
    maximum: Any = None
    not_finite: int = 0
    """NaN and infinities, which `numbers` leaves out."""
    numbers: Numbers | None = None
    """Of numbers; of times in seconds, for moments since 1970."""
    lengths: Numbers | None = None
    """Of text in characters, of binary in bytes, of lists in items."""
    top: tuple[Top, ...] = ()
    """At most 100; where there are more distinct values, those that occur once are left out."""
    top_error: int = 0
    """A count of `top` may be too low by at most this."""

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Column:
        numbers, lengths = (
            value[key] and Numbers(**_tuples(value[key])) for key in ("numbers", "lengths")
        )
        top = tuple(Top(**item) for item in value["top"])
        return cls(**{**value, "numbers": numbers, "lengths": lengths, "top": top})


@dataclass(frozen=True, slots=True)
class Profile:
    rows: int
    columns: tuple[Column, ...]

    def column(self, name: str) -> Column:
        """Return the profile of one column.

        Raises:
            NotFound: there is no such column.
        """
        found = next((column for column in self.columns if column.name == name), None)
        if found is None:
            raise NotFound("column", name, among=(column.name for column in self.columns))
        return found

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {"rows": self.rows, "columns": [_lists(asdict(item)) for item in self.columns]}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Profile:
        return cls(value["rows"], tuple(Column.from_dict(item) for item in value["columns"]))


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lists(item) for key, item in value.items()}
    return [_lists(item) for item in value] if isinstance(value, tuple) else value


def _tuples(value: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(item) if isinstance(item, list) else item for key, item in value.items()}

"""What is known of a table's columns when a suite is suggested: from a frame, or from a profile."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from infra.plugins import require

if TYPE_CHECKING:
    import polars as pl

    from infra.datasets.profile import Column, Profile

MOST_VALUES = 30
"""Different values that are worth a list."""
_LONGEST_VALUE = 100
_LARGEST = 2**63
_ARROW = {
    r"u?int\d+": "integer",
    r"halffloat|float|double": "float",
    r"decimal\d+\(.*\)": "number",
    r"(large_)?string(_view)?": "string",
    r"dictionary<values=(large_)?string.*>": "string",
    r"bool": "boolean",
    r"date32\[day\]": "date",
    r"timestamp\[.*\]": "datetime",
    r"time\d+\[.*\]": "time",
    r"duration\[.*\]": "duration",
    r"(large_|fixed_size_)?list<.*>.*": "list",
    r"struct<.*>": "struct",
    r"null": "null",
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one column."""

    name: str
    family: str | None
    """As in a suite's rule `columns`; `None` where there is no word for it."""
    rows: int
    missing: int
    distinct: int | None = None
    """`None` where it is not known exactly."""
    low: Any = None
    high: Any = None
    values: tuple[Any, ...] | None = None
    """All of them, where they are few and known."""
    shortest: int | None = None
    longest: int | None = None
    """Characters of the texts."""

    @property
    def present(self) -> int:
        return self.rows - self.missing


def of_frame(frame: pl.DataFrame) -> Iterator[Facts]:
    """Look at every column of a table."""
    from infra.expectations.types import family

    for name in frame.columns:
        values = frame.get_column(name)
        yield _of_series(name, values, family(values.dtype))


def of_profile(profile: Profile) -> Iterator[Facts]:
    """Read what a profile says of every column."""
    for column in profile.columns:
        kind = _family_of_arrow(column.type)
        missing = column.nulls + column.not_finite
        whole = not column.not_finite
        lengths = column.lengths if column.kind == "text" else None
        exact = column.distinct if column.distinct_exact and whole else None
        yield Facts(
            name=column.name,
            family=kind,
            rows=profile.rows,
            missing=missing,
            distinct=exact,
            low=_bound(_point(column.minimum, kind)) if whole else None,
            high=_bound(_point(column.maximum, kind), up=True) if whole else None,
            values=_listed(column) if exact is not None else None,
            shortest=int(lengths.minimum) if lengths else None,
            longest=int(lengths.maximum) if lengths else None,
        )


def _of_series(name: str, values: pl.Series, kind: str | None) -> Facts:
    pl = require("polars", extra="data")
    rows = len(values)
    if kind == "float":
        values = values.fill_nan(None)
    present = values.drop_nulls()
    known: dict[str, Any] = {"rows": rows, "missing": rows - len(present)}
    if kind in {"number", "integer", "float", "date", "datetime"} and len(present):
        finest = isinstance(values.dtype, pl.Datetime) and values.dtype.time_unit == "ns"
        known["low"] = _bound(_python(present.min))
        known["high"] = _bound(_python(present.max), up=True, nanoseconds=finest)
    if kind == "integer":
        known["distinct"] = present.n_unique()
    if kind == "string":
        present = present.cast(pl.String)
        lengths = present.str.len_chars()
        known |= {"distinct": present.n_unique(), "shortest": lengths.min()}
        known["longest"] = lengths.max()
        if 0 < known["distinct"] <= MOST_VALUES and known["longest"] <= _LONGEST_VALUE:
            known["values"] = tuple(present.unique().sort().to_list())
    return Facts(name=name, family=kind, **known)


def _python(read: Any) -> Any:
    pl = require("polars", extra="data")
    try:
        return read()
    except (ValueError, OverflowError, pl.exceptions.PanicException):
        return None  # a year that Python's calendar does not have


def _bound(value: Any, *, up: bool = False, nanoseconds: bool = False) -> Any:
    """Return a value as the bound of a range, or `None` where it cannot be one."""
    if isinstance(value, Decimal):
        value = math.ceil(value) if up else math.floor(value)
    if isinstance(value, datetime) and nanoseconds and up:
        return value + timedelta(microseconds=1)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int):
        return value if abs(value) < _LARGEST else None
    return value if isinstance(value, date) else None


def _point(value: Any, kind: str | None) -> Any:
    if not isinstance(value, str):
        return value
    readers: Mapping[str | None, Any] = {
        "date": date.fromisoformat,
        "datetime": datetime.fromisoformat,
    }
    try:
        return readers[kind](value)
    except (KeyError, ValueError):
        return None


def _listed(column: Column) -> tuple[Any, ...] | None:
    few = column.kind == "text" and column.distinct == len(column.top) <= MOST_VALUES
    short = column.lengths is not None and column.lengths.maximum < _LONGEST_VALUE
    if not few or not short or column.top_error:
        return None
    return tuple(sorted(str(item.value) for item in column.top))


def _family_of_arrow(name: str) -> str | None:
    return next((kind for pattern, kind in _ARROW.items() if re.fullmatch(pattern, name)), None)

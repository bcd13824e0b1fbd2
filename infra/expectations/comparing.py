"""Makes the bounds and values of a rule comparable with those of a column, whatever its type."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl

from infra.errors import InvalidRequest
from infra.expectations.report import shown
from infra.expectations.types import is_of
from infra.expectations.value_rules import Categories

KEY = "0"
"""The name of a rule's one column while it is checked."""
ORDERED = ("number", "date", "datetime")
_KINDS: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "datetime": (datetime,),
    "date": (date,),
}


def plain(dtype: pl.DataType) -> pl.Expr:
    """Return the column without NaN, in UTC, and as text if it is of the kinds of text."""
    values = pl.col(KEY)
    if is_of(dtype, "float"):
        return values.fill_nan(None)
    if isinstance(dtype, pl.Datetime) and dtype.time_zone is not None:
        return values.dt.convert_time_zone("UTC")
    return values.cast(pl.String) if is_of(dtype, "string") else values


def fitting(bound: Any, dtype: pl.DataType, *, late: bool = False) -> Any:
    """Return a bound as something that a column's values can be compared with; moments in UTC.

    A date stands for the first moment of its day or, if `late`, for the last.

    Raises:
        InvalidRequest: it is a date and the column is not, or the other way round.
    """
    if bound is None:
        return None
    if isinstance(bound, date) != isinstance(dtype, pl.Date | pl.Datetime):
        raise InvalidRequest(f"a bound is {bound!r}, but the column holds {dtype}")
    if isinstance(dtype, pl.Date) and isinstance(bound, datetime):
        raise InvalidRequest(f"a bound is the moment {bound}, but the column holds dates")
    if not isinstance(dtype, pl.Datetime):
        return bound
    if not isinstance(bound, datetime):
        bound = datetime.combine(bound, time.max if late else time.min)
    if dtype.time_zone is None:
        return bound if bound.tzinfo is None else bound.astimezone(UTC).replace(tzinfo=None)
    return in_utc(bound, ZoneInfo(dtype.time_zone))


def listed(rule: Categories, dtype: pl.DataType) -> pl.Series:
    """Return the listed values as the column holds them.

    Raises:
        InvalidRequest: the column cannot hold one of them.
    """
    kinds: tuple[type, ...] = next(
        (kinds for family, kinds in _KINDS.items() if is_of(dtype, family)), ()
    )
    values = []
    for value in rule.values:
        if is_of(dtype, "integer") and isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise InvalidRequest(
                f"column {rule.column!r} holds {dtype}, so {shown(value)!r} cannot be in it; "
                "write values of that type, text in quotes"
            )
        values.append(fitting(value, dtype) if isinstance(value, datetime) else value)
    if isinstance(dtype, pl.Datetime) and dtype.time_zone is not None:
        dtype = pl.Datetime(dtype.time_unit, "UTC")
    return pl.Series(values, dtype=pl.String() if is_of(dtype, "string") else dtype, strict=False)


def in_utc(point: date, zone: ZoneInfo) -> datetime:
    """Return a date's first moment, or a moment, which is in `zone` unless it says another."""
    moment = point if isinstance(point, datetime) else datetime.combine(point, time.min)
    return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).astimezone(UTC)

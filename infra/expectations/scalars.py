"""What the keys of a rule may hold: names of columns, bounds, values, shares, periods."""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta
from typing import Annotated, Any, TypeAlias

from pydantic import BeforeValidator, Field, PlainSerializer, StringConstraints

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

ColumnName: TypeAlias = Annotated[str, StringConstraints(max_length=1_000)]
ColumnNames: TypeAlias = Annotated[tuple[ColumnName, ...], Field(min_length=1, max_length=1_000)]
Share: TypeAlias = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Count: TypeAlias = Annotated[int, Field(ge=0, lt=2**63)]
WholeNumber: TypeAlias = Annotated[int, Field(gt=-(2**63), lt=2**63, strict=True)]
FiniteNumber: TypeAlias = Annotated[float, Field(allow_inf_nan=False, strict=True)]
Number: TypeAlias = WholeNumber | FiniteNumber
Text: TypeAlias = Annotated[str, StringConstraints(max_length=10_000)]
Moment: TypeAlias = Annotated[datetime, Field(strict=True)]
Day: TypeAlias = Annotated[date, Field(strict=True)]
Flag: TypeAlias = Annotated[bool, Field(strict=True)]
Value: TypeAlias = Flag | WholeNumber | FiniteNumber | Moment | Day | Text


def _as_bound(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return date.fromisoformat(value) if len(value) <= 10 else datetime.fromisoformat(value)
    except ValueError:
        raise ValueError(f"{value!r} is neither a number nor a date such as 2024-01-31") from None


Bound: TypeAlias = Annotated[
    WholeNumber | FiniteNumber | Moment | Day,
    BeforeValidator(_as_bound, json_schema_input_type=int | float | datetime | date),
]


def _as_duration(value: Any) -> Any:
    text = value.strip() if isinstance(value, str) else ""
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?) ?([smhdw])", text)
    if match is None:
        raise ValueError("write a number and s, m, h, d or w, such as 36h")
    try:
        return timedelta(**{_UNITS[match[2]]: float(match[1])})
    except OverflowError:
        raise ValueError(f"{text!r} is longer than the calendar") from None


def _as_text(value: timedelta) -> str:
    seconds = value.total_seconds()
    return f"{int(seconds)}s" if seconds.is_integer() else f"{seconds:.6f}s"


Duration: TypeAlias = Annotated[
    timedelta,
    BeforeValidator(_as_duration, json_schema_input_type=str),
    PlainSerializer(_as_text, return_type=str),
]


def check_bounds(low: Any, high: Any) -> None:
    """See that there is a bound, and that they are in order.

    Raises:
        ValueError: there is none, they are not of one kind, or the lower is above the upper.
    """
    if low is None and high is None:
        raise ValueError("give min, max or both")
    if low is None or high is None:
        return
    if isinstance(low, date) != isinstance(high, date):
        raise ValueError(f"min {low} and max {high} cannot be compared")
    # Of dates the days: a moment may say its time zone, or none, and a date has no time.
    if _comparable(low) > _comparable(high):
        raise ValueError(f"min {low} is above max {high}")


def _comparable(bound: Any) -> Any:
    return bound.timetuple()[:3] if isinstance(bound, date) else bound

"""What a rule is evaluated on and what it may find: of each row, or of the table as a whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import cached_property
from typing import Any

import polars as pl

from infra.errors import InvalidRequest
from infra.expectations.compiling import column
from infra.expectations.types import is_of
from infra.plugins import require

MOST_REASONS = 10
_EPOCH = date(1970, 1, 1).toordinal()
_PER_SECOND = {"ms": 10**3, "us": 10**6, "ns": 10**9}


class Models:
    """What rules have to load, once for all rules of a run."""

    @cached_property
    def languages(self) -> Any:
        """Tells languages with a probability; half a second to load."""
        langid = require("py3langid.langid", extra="data")
        return langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)


@dataclass(frozen=True, slots=True)
class Table:
    """The rows that a rule looks at."""

    frame: pl.LazyFrame
    """Narrowed by the rule's `where`."""
    schema: pl.Schema
    now: datetime
    index: str
    """The column of `frame` that counts the rows of the whole table, from 0."""
    models: Models = field(default_factory=Models)

    def select(self, *names: str) -> pl.LazyFrame:
        """Return some columns under the names `0`, `1`, ..., which no pattern is mistaken for."""
        return self.frame.select(column(name).alias(str(place)) for place, name in enumerate(names))

    def values(self, name: str) -> pl.Series:
        """Return one column, in memory."""
        return self.select(name).collect().to_series()

    def row(self, position: int) -> int:
        """Return which row of the whole table stands at a position."""
        return int(self.frame.select(column(self.index)).slice(position, 1).collect().item())

    def require(self, name: str, families: Sequence[str], what: str) -> pl.DataType:
        """Return a column's type.

        Raises:
            InvalidRequest: it is none that the rule can look at.
        """
        dtype = self.schema[name]
        if not any(is_of(dtype, family) for family in families):
            raise InvalidRequest(f"column {name!r} holds {dtype}; {what} is needed")
        return dtype


@dataclass(frozen=True, slots=True)
class Judged:
    """What a rule says of each row."""

    good: pl.Series
    """One boolean for each row; true also where the rule does not apply."""
    checked: int
    """Rows it applies to."""
    observed: Mapping[str, Any] = field(default_factory=dict)
    reasons: Callable[[int], str] = lambda _: ""
    """What is wrong with the row at a position."""


@dataclass(frozen=True, slots=True)
class Stated:
    """What a rule says of the table as a whole."""

    passed: bool
    message: str
    observed: Mapping[str, Any] = field(default_factory=dict)


def readable(values: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Return values that Python has: dates outside its years 1 to 9999 become null."""
    if not isinstance(dtype, pl.Date | pl.Datetime):
        return values
    unit = 1 if isinstance(dtype, pl.Date) else 86_400 * _PER_SECOND[dtype.time_unit]
    # A day less on both sides, for the hours between time zones.
    low, high = (unit * (day.toordinal() - _EPOCH) for day in (date.min, date.max))
    known = values.to_physical().cast(pl.Int128).is_between(low + unit, high - unit)
    return pl.when(known).then(values)


def judge_by(
    reasons: Sequence[str | None],
    *,
    checked: int,
    details: Callable[[int], str] | None = None,
    **observed: Any,
) -> Judged:
    """Return the verdict of a rule that gives each row's fault in words, or `None`.

    `details` says more of the fault of the row at a position than what is counted.
    """
    good = pl.Series("good", [reason is None for reason in reasons], dtype=pl.Boolean)
    counts = Counter(reason for reason in reasons if reason is not None)
    if counts:
        observed["reasons"] = dict(counts.most_common(MOST_REASONS))
    return Judged(good, checked, observed, details or (lambda place: reasons[place] or ""))

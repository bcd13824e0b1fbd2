"""What a suite may say of a table as a whole: columns, rows, statistics, freshness."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from infra.expectations.rules import Rule, Strict
from infra.expectations.scalars import Bound, ColumnName, Count, Duration, check_bounds


class ColumnType(Strict):
    """What one column holds."""

    type: str
    """`integer`, `number`, `string`, `boolean`, `date`, `datetime`, ... or a type of polars."""
    optional: bool = False
    """The column may be absent."""


class Columns(Rule):
    """The columns of the table and their types."""

    rule: Literal["columns"]
    columns: Annotated[
        dict[ColumnName, ColumnType | str | None], Field(min_length=1, max_length=10_000)
    ]
    """Column to type; without a type it only has to be there."""
    others: Literal["allow", "forbid"] = "allow"
    """Whether there may be more columns."""
    ordered: bool = False
    """The columns stand in this order, the others after or between them."""

    @property
    def subject(self) -> tuple[str, ...]:
        return ()

    @model_validator(mode="after")
    def _types_are_known(self) -> Self:
        from infra.expectations.types import check_type

        if self.where is not None:
            raise ValueError("the rule 'columns' looks at no rows, so 'where' means nothing here")
        for wanted in self.columns.values():
            if wanted is not None:
                check_type(wanted if isinstance(wanted, str) else wanted.type)
        return self


class Rows(Rule):
    """How many rows there are."""

    rule: Literal["rows"]
    min: Count | None = None
    max: Count | None = None

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        check_bounds(self.min, self.max)
        return self


class Statistic(Rule):
    """A number computed of a whole column lies between bounds."""

    rule: Literal["statistic"]
    column: ColumnName
    statistic: Literal["min", "max", "mean", "median", "std", "sum", "distinct", "distinct_share"]
    min: Bound | None = None
    max: Bound | None = None

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        check_bounds(self.min, self.max)
        return self


class Freshness(Rule):
    """The newest moment of a column is not long ago, and none is in the future."""

    rule: Literal["freshness"]
    column: ColumnName
    max_age: Duration
    """Such as `36h` or `7d`, before the clock of whoever checks."""
    max_ahead: Duration = timedelta(hours=1)
    """A moment further in the future fails: it would look fresh for ever."""
    time_zone: str = "UTC"
    """Of moments that do not say theirs."""

    @model_validator(mode="after")
    def _zone_exists(self) -> Self:
        from zoneinfo import ZoneInfo

        try:
            ZoneInfo(self.time_zone)
        except (KeyError, ValueError, OSError):
            raise ValueError(f"{self.time_zone!r} is not a time zone such as Europe/London") from (
                None
            )
        return self

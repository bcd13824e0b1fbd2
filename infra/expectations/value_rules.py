"""What a suite may say of the values in each row: one strict model for each rule."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from infra.errors import RagstoneError
from infra.expectations import expression
from infra.expectations.rules import RowRule, parse_condition
from infra.expectations.scalars import Bound, ColumnName, ColumnNames, Value, check_bounds


class Nulls(RowRule):
    """A column has a value in every row; a NaN is none."""

    rule: Literal["nulls"]
    column: ColumnName
    expect: Literal["none", "all"] = "none"
    """`all` says that the column is empty."""


class Unique(RowRule):
    """No two rows have the same values in these columns."""

    rule: Literal["unique"]
    columns: ColumnNames
    missing: Literal["skip", "value"] = "skip"
    """`skip` passes over rows that lack a value, `value` over those that lack all of them."""


class Range(RowRule):
    """Numbers, dates or moments lie between bounds."""

    rule: Literal["range"]
    column: ColumnName
    min: Bound | None = None
    max: Bound | None = None
    exclusive: Literal["neither", "min", "max", "both"] = "neither"
    """Bounds that a value may not equal."""

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        check_bounds(self.min, self.max)
        return self


class Categories(RowRule):
    """Values are among those listed, or none of them is."""

    rule: Literal["categories"]
    column: ColumnName
    values: Annotated[tuple[Value, ...], Field(min_length=1, max_length=10_000)]
    expect: Literal["listed", "unlisted"] = "listed"
    complete: bool = False
    """Every value that is listed also occurs."""


class Pattern(RowRule):
    """Text matches a regular expression somewhere; anchor it with `^` and `$`."""

    rule: Literal["pattern"]
    column: ColumnName
    regex: Annotated[str, StringConstraints(min_length=1, max_length=2_000)]
    expect: Literal["match", "no match"] = "match"

    @model_validator(mode="after")
    def _regex_compiles(self) -> Self:
        try:
            expression.check_pattern(self.regex)
        except RagstoneError as error:
            raise ValueError(error.message) from None
        return self


class Expression(RowRule):
    """An expression over the columns of a row holds."""

    rule: Literal["expression"]
    expression: str

    @property
    def subject(self) -> tuple[str, ...]:
        return expression.parse(self.expression).columns

    @model_validator(mode="after")
    def _is_an_expression(self) -> Self:
        parse_condition(self.expression)
        return self

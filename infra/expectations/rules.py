"""What every rule of a suite has in common, and that keys which do not exist are refused."""

from __future__ import annotations

from typing import Annotated, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, StringConstraints, model_validator

from infra.errors import RagstoneError
from infra.expectations import expression
from infra.expectations.scalars import Share

Severity: TypeAlias = Literal["required", "warning"]


class Strict(BaseModel):
    """Refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Rule(Strict):
    """What every rule has."""

    rule: str
    name: Annotated[str, StringConstraints(max_length=200)] = ""
    """How the report calls it; the rule and its columns by default."""
    severity: Severity = "required"
    """Data that fails a required check is refused by training; a warning is only shown."""
    where: str | None = None
    """An expression that a row must satisfy for the rule to look at it."""

    @property
    def subject(self) -> tuple[str, ...]:
        """Columns it speaks of."""
        columns: tuple[str, ...] = getattr(self, "columns", ())
        return columns or ((self.column,) if hasattr(self, "column") else ())

    @property
    def reads(self) -> tuple[str, ...]:
        """Columns that must be there: those it speaks of, and those of its `where`."""
        conditions = expression.parse(self.where).columns if self.where else ()
        return tuple(dict.fromkeys([*self.subject, *conditions]))

    @model_validator(mode="after")
    def _where_is_an_expression(self) -> Self:
        if self.where is not None:
            parse_condition(self.where)
        return self


class RowRule(Rule):
    """A rule that each row satisfies or fails; a row without a value is passed over."""

    max_failing_share: Share = 0.0
    """Of the rows it looks at; 0.01 lets one in a hundred fail."""


def parse_condition(text: str) -> None:
    """See that an expression can be read.

    Raises:
        ValueError: it cannot, with the reason.
    """
    try:
        expression.parse(text)
    except RagstoneError as error:
        raise ValueError(error.message) from None

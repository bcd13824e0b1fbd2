"""Budgets and usage over HTTP; amounts are decimal numbers in text, so that no cent is rounded."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from service.gateway.budgets import Holder, Standing
from service.gateway.prices import format_amount
from service.gateway.spans import Period
from service.gateway.usage import Row
from service.schemas.shared import Input, unix

Amount = Annotated[str, StringConstraints(min_length=1, max_length=32)]
Word = Annotated[str, StringConstraints(min_length=1, max_length=255)]


class PutBudget(Input):
    """One of `key`, `tenant` or neither, which is a budget for all."""

    key: Word | None = None
    """Name or id."""
    tenant: Word | None = None
    period: Period = "total"
    amount: Amount
    """Such as `12.50`."""


class BudgetOut(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    id: str
    object: Literal["budget"] = "budget"
    holder: Holder = Field(serialization_alias="for")
    key: str | None
    """The key's id."""
    tenant: str | None
    period: Period
    span: str
    """The day or month that is meant now, in UTC."""
    amount: str
    spent: str
    held: str
    """Set aside by running processes, for calls under way and the next ones."""
    remaining: str
    currency: str
    created_at: int

    @classmethod
    def of(cls, standing: Standing, *, currency: str) -> BudgetOut:
        budget = standing.budget
        return cls(
            id=budget.id,
            holder=budget.holder,
            key=budget.subject if budget.holder == "key" else None,
            tenant=budget.subject if budget.holder == "tenant" else None,
            period=budget.period,
            span=standing.span,
            amount=format_amount(budget.amount),
            spent=format_amount(standing.spent),
            held=format_amount(standing.held),
            remaining=format_amount(standing.remaining),
            currency=currency,
            created_at=unix(budget.created_at),
        )


class BudgetList(BaseModel):
    object: Literal["list"] = "list"
    data: list[BudgetOut]


class UsageRow(BaseModel):
    """Columns that were not asked for are null."""

    day: str | None
    key: str | None
    """The key's id; empty for calls without a key."""
    name: str | None
    """The key's name."""
    model: str | None
    tenant: str | None
    requests: int
    interrupted: int
    """Cut off by the death of the process, and charged at the most they could cost."""
    prompt_tokens: int
    completion_tokens: int
    cost: str

    @classmethod
    def of(cls, row: Row, *, names: dict[str, str]) -> UsageRow:
        count = row.count
        return cls(
            day=row.day,
            key=row.key,
            name=None if row.key is None else names.get(row.key, ""),
            model=row.model,
            tenant=row.tenant,
            requests=count.requests,
            interrupted=count.interrupted,
            prompt_tokens=count.prompt_tokens,
            completion_tokens=count.completion_tokens,
            cost=format_amount(count.cost),
        )


class UsageList(BaseModel):
    object: Literal["list"] = "list"
    currency: str
    data: list[UsageRow]
    has_more: bool
    """True if there are more lines than are ever returned: ask for fewer days or columns."""

"""Budgets and usage: set limits of money, see what was spent, by whom, on which model."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from service.bodies import StrictRoute
from service.dependencies import Operator, Parts
from service.gateway.budgets import subject_of
from service.gateway.prices import parse_amount
from service.gateway.usage import COLUMNS, MAX_ROWS, Column, report
from service.schemas.budgets import BudgetList, BudgetOut, PutBudget, UsageList, UsageRow
from service.schemas.shared import OPENAI_ERRORS, Deleted
from service.schemas.times import Day

router = APIRouter(
    prefix="/v1",
    tags=["budgets"],
    route_class=StrictRoute,
    responses=OPENAI_ERRORS,
    dependencies=[Operator],
)
BudgetId = Annotated[str, Path(max_length=64)]


@router.post("/budgets")
def put(body: PutBudget, components: Parts) -> BudgetOut:
    """Set a budget, or change its amount; what was spent stays spent."""
    key = None if body.key is None else components.keys.get(body.key).id
    holder, subject = subject_of(key=key, tenant=body.tenant)
    amount = parse_amount(body.amount)
    budget = components.budgets.put(holder, subject, period=body.period, amount=amount)
    return get(budget.id, components)


@router.get("/budgets")
def list_budgets(components: Parts) -> BudgetList:
    """List the budgets and how they stand."""
    currency = components.routes.current.settings.currency
    standings = components.budgets.standings()
    return BudgetList(data=[BudgetOut.of(each, currency=currency) for each in standings])


@router.get("/budgets/{budget_id}")
def get(budget_id: BudgetId, components: Parts) -> BudgetOut:
    """Return one budget and how it stands; calls under way are seen within a second."""
    currency = components.routes.current.settings.currency
    return BudgetOut.of(components.budgets.get(budget_id), currency=currency)


@router.delete("/budgets/{budget_id}")
def remove(budget_id: BudgetId, components: Parts) -> Deleted:
    """Remove a budget; usage stays."""
    components.budgets.remove(budget_id)
    return Deleted(id=budget_id, object="budget.deleted")


@router.get("/usage")
def usage(
    components: Parts,
    by: Annotated[list[Column], Query(max_length=len(COLUMNS))] = [],  # noqa: B006
    since: Day | None = None,
    until: Day | None = None,
) -> UsageList:
    """Add up what calls used, by day, key, model or tenant; days are those of UTC."""
    rows = report(components.database, by, since=since, until=until, limit=MAX_ROWS + 1)
    names = components.keys.names(row.key for row in rows if row.key)
    return UsageList(
        currency=components.routes.current.settings.currency,
        data=[UsageRow.of(row, names=names) for row in rows[:MAX_ROWS]],
        has_more=len(rows) > MAX_ROWS,
    )

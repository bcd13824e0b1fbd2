"""`ragstone budgets`: how much money a key, a tenant or everybody may spend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from service.cli.output import Json, Yes, note, print_json, print_table, say
from service.cli.session import opened

if TYPE_CHECKING:
    from service.gateway.budgets import Standing
    from service.wiring import Components

Period = Literal["total", "day", "month"]
Key = Annotated[str | None, typer.Option("--key", help="Name or id of a key.")]
Tenant = Annotated[str | None, typer.Option("--tenant", help="Name of a tenant.")]

app = typer.Typer(
    help="Limit what keys, tenants or all may spend.", no_args_is_help=True, rich_markup_mode=None
)


@app.command("set")
def set_budget(
    amount: Annotated[str, typer.Argument(help="In the currency of gateway.currency: 12.50.")],
    key: Key = None,
    tenant: Tenant = None,
    period: Annotated[
        Period, typer.Option(help="What it is for: once, or every day or month of UTC.")
    ] = "total",
    json: Json = False,
) -> None:
    """Set a budget for a key, a tenant or, without either, all; or change its amount."""
    from service.gateway.budgets import subject_of
    from service.gateway.prices import parse_amount

    nanos = parse_amount(amount)
    with opened() as parts:
        holder, subject = subject_of(key=parts.keys.get(key).id if key else None, tenant=tenant)
        budget = parts.budgets.put(holder, subject, period=period, amount=nanos)
        row = _row(parts, parts.budgets.get(budget.id))
    if json:
        print_json(row)
    else:
        say(f"{row['for']}: {row['amount']} {row['currency']} ({period}), {row['spent']} spent")


@app.command("list")
def list_budgets(json: Json = False) -> None:
    """List the budgets and how they stand now."""
    with opened() as parts:
        rows = [_row(parts, each) for each in parts.budgets.standings()]
    if json:
        print_json(rows)
    elif rows:
        columns = ("for", "period", "span", "amount", "spent", "held", "remaining", "id")
        figures = ("amount", "spent", "held", "remaining")
        print_table(columns, [[row[name] for name in columns] for row in rows], numbers=figures)
    else:
        note("No budgets; set one with `ragstone budgets set AMOUNT --key NAME`")


@app.command("show")
def show(
    budget_id: Annotated[str, typer.Argument(help="Id of the budget.")], json: Json = False
) -> None:
    """Show one budget and how it stands now."""
    with opened() as parts:
        row = _row(parts, parts.budgets.get(budget_id))
    if json:
        print_json(row)
    else:
        print_table(("what", "value"), row.items())


@app.command("remove")
def remove(
    budget_id: Annotated[str, typer.Argument(help="Id of the budget.")],
    yes: Yes = False,
) -> None:
    """Remove a budget and what was counted against it; usage stays."""
    with opened() as parts:
        budget = parts.budgets.get(budget_id).budget
        if not yes:
            typer.confirm(f"Remove the budget {budget.id!r}?", abort=True, err=True)
        parts.budgets.remove(budget.id)
    say(f"Removed {budget_id!r}")


def _row(parts: Components, standing: Standing) -> dict[str, Any]:
    from service.gateway.prices import format_amount

    budget = standing.budget
    names = parts.keys.names([budget.subject]) if budget.holder == "key" else {}
    return {
        "for": f"{budget.holder} {names.get(budget.subject, budget.subject)}".strip(),
        "period": budget.period,
        "span": standing.span,
        "amount": format_amount(budget.amount),
        "spent": format_amount(standing.spent),
        "held": format_amount(standing.held),
        "remaining": format_amount(standing.remaining),
        "currency": parts.settings.gateway.currency,
        "created_at": budget.created_at,
        "id": budget.id,
    }

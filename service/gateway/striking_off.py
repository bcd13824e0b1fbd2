"""Closes the account of a process that is gone: what it spent stays, what it held goes back."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, delete, insert, select, update

from infra.database.money import allowance, budget, budget_account, spender
from service.gateway.counts import AccountId


def strike_off(
    connection: Connection,
    spender_id: str,
    *,
    spent: Mapping[AccountId, int],
    everything: bool,
) -> None:
    """Settle the account of a process that is gone, and give back what it did not use.

    Args:
        connection: of a transaction that holds `MONEY_LOCK`.
        spender_id: the process.
        spent: what it had not reported.
        everything: charge all that it had borrowed, because it may have spent it.
    """
    mine = allowance.c.spender_id == spender_id
    granted = {
        (row.budget_id, row.span): row.granted
        for row in connection.execute(select(allowance).where(mine))
    }
    known = set(connection.scalars(select(budget.c.id)))
    for account_id in sorted(granted.keys() | spent.keys()):
        if account_id[0] not in known:
            continue
        lent, charged = granted.get(account_id, 0), spent.get(account_id, 0)
        if everything:
            charged = max(charged, lent)
        this = (budget_account.c.budget_id == account_id[0], budget_account.c.span == account_id[1])
        done = connection.execute(
            update(budget_account)
            .where(*this)
            .values(
                spent=budget_account.c.spent + charged,
                lent=budget_account.c.lent - lent,
            )
        )
        if not done.rowcount:  # it was charged more than foreseen, having borrowed nothing
            budget_id, span = account_id
            connection.execute(
                insert(budget_account).values(
                    budget_id=budget_id, span=span, spent=charged, lent=0, recalls=0
                )
            )
    connection.execute(delete(allowance).where(mine))
    connection.execute(delete(spender).where(spender.c.id == spender_id))


def reported_by(connection: Connection, spender_id: str) -> int | None:
    """Return up to where a process has reported; None if it is struck off."""
    found = connection.execute(select(spender.c.reported).where(spender.c.id == spender_id))
    number: int | None = found.scalar_one_or_none()
    return number

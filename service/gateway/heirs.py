"""Settles what processes that died had borrowed: from their journals, on the same machine."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import Connection, delete, select, update

from infra.database.engine import Database
from infra.database.money import allowance, budget, budget_account, spender
from infra.errors import StorageFailed
from service.gateway import journal_reading
from service.gateway.counts import AccountId
from service.gateway.escrow import MONEY_LOCK
from service.gateway.usage import record_usage

logger = logging.getLogger(__name__)

SILENT_DAYS = 30
"""After which a process of another machine will not come back for its journal."""


def inherit(database: Database, folder: Path, *, own: str) -> int:
    """Account for the dead processes that left a journal in `folder`; returns how many.

    What they settled is charged as it was, a call that had not ended at the most it could cost, and
    the rest of what they had borrowed goes back. After a restart of the machine, lines may be
    missing: then all that they had borrowed counts as spent.
    """
    found = 0
    for spender_id in sorted(journal_reading.spenders(folder) - {own}):
        with journal_reading.inheriting(folder, spender_id) as is_heir:
            if is_heir:
                settle(database, folder, spender_id)
                found += 1
    return found


def settle(database: Database, folder: Path, spender_id: str) -> None:
    """Account for one process of which the lock is held, and remove its journal."""
    with database.write(lock=MONEY_LOCK) as connection:
        reported = reported_by(connection, spender_id)
        if reported is not None:
            try:
                told = journal_reading.read(folder, spender_id, reported=reported)
            except OSError as error:
                raise StorageFailed(f"A journal of {spender_id!r} cannot be read") from error
            record_usage(connection, told.usage)
            strike_off(connection, spender_id, spent=told.spent, everything=not told.is_certain)
            if told.interrupted or not told.is_certain:
                logger.warning(
                    "%s ended with %d calls under way, charged at the most they could cost%s",
                    spender_id,
                    told.interrupted,
                    "" if told.is_certain else "; all it had borrowed counts as spent",
                )
    journal_reading.remove(folder, spender_id)


def write_off(database: Database, *, now: datetime | None = None) -> int:
    """Charge all that was borrowed by processes of which nothing was heard for `SILENT_DAYS`."""
    long_ago = (now or datetime.now(UTC)) - timedelta(days=SILENT_DAYS)
    with database.write(lock=MONEY_LOCK) as connection:
        silent = connection.scalars(select(spender.c.id).where(spender.c.seen_at < long_ago)).all()
        for spender_id in silent:
            strike_off(connection, spender_id, spent={}, everything=True)
            logger.warning("%s is not coming back: all it had borrowed is spent", spender_id)
    return len(silent)


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
        connection.execute(
            update(budget_account)
            .where(*this)
            .values(
                spent=budget_account.c.spent + charged,
                lent=budget_account.c.lent - lent,
            )
        )
    connection.execute(delete(allowance).where(mine))
    connection.execute(delete(spender).where(spender.c.id == spender_id))


def reported_by(connection: Connection, spender_id: str) -> int | None:
    """Return up to where a process has reported; None if it is struck off."""
    found = connection.execute(select(spender.c.reported).where(spender.c.id == spender_id))
    number: int | None = found.scalar_one_or_none()
    return number

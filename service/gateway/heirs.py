"""Settles what processes that died had borrowed: from their journals, on the same machine."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import select

from infra.database.engine import Database
from infra.database.money import spender
from infra.errors import StorageFailed
from service.gateway import journal_files, journal_reading
from service.gateway.escrow import MONEY_LOCK
from service.gateway.striking_off import reported_by, strike_off
from service.gateway.usage import record_usage

logger = logging.getLogger(__name__)

SILENT_DAYS = 30
"""After which a process of another machine will not come back for its journal."""


def inherit(database: Database, folder: Path, *, own: str) -> int:
    """Account for the dead processes that left a journal in `folder`; returns how many.

    What they settled is charged as it was, a call that had not ended at the most it could cost, and
    the rest of what they had borrowed goes back. After a restart of the machine, lines may be
    missing: then all that they had borrowed counts as spent.

    Raises:
        StorageFailed: one could not be accounted for, unlike the others; the next call tries again.
    """
    found = 0
    problem: Exception | None = None
    for spender_id in sorted(journal_files.spenders(folder) - {own}):
        try:
            with journal_files.inheriting(folder, spender_id) as is_heir:
                if is_heir:
                    settle(database, folder, spender_id)
                    found += 1
        except (StorageFailed, OSError) as error:
            problem = error
    if problem is not None:
        raise StorageFailed(f"What a process left is not settled: {problem}") from problem
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
    journal_files.remove(folder, spender_id)


def write_off(database: Database, *, now: datetime | None = None) -> int:
    """Charge all that was borrowed by processes of which nothing was heard for `SILENT_DAYS`."""
    long_ago = (now or datetime.now(UTC)) - timedelta(days=SILENT_DAYS)
    with database.write(lock=MONEY_LOCK) as connection:
        silent = connection.scalars(select(spender.c.id).where(spender.c.seen_at < long_ago)).all()
        for spender_id in silent:
            strike_off(connection, spender_id, spent={}, everything=True)
            logger.warning("%s is not coming back: all it had borrowed is spent", spender_id)
    return len(silent)

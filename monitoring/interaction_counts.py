"""Interactions by count: which make a window of so many rows, as they were written, each once."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, func, select, text

from infra.database.engine import Database
from infra.database.interaction_tables import interaction as table
from infra.errors import StorageFailed
from monitoring.interactions import Query

TOLERANCE = timedelta(minutes=5)
"""By which the clocks of processes may differ."""
POLL_SECONDS = 0.05
"""Between two looks at who is still writing."""
# Transactions that hold the table as writers do: from before they take a number until their rows
# are seen. A lock of our own would make all writers wait behind the slowest, such as the one that
# removes what is too old, and would end whatever vacuums the table.
_WRITING = text(
    "SELECT virtualtransaction FROM pg_locks WHERE locktype = 'relation' AND granted "
    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
    f"AND relation = '{table.name}'::regclass AND mode = 'RowExclusiveLock'"
)


def settled(database: Database) -> int:
    """Return the number of the last interaction before which no other one will appear.

    In PostgreSQL a process may commit a number after another process has committed a larger one:
    whoever is writing is waited for, and keeps nobody else from writing meanwhile.

    Raises:
        StorageFailed: the database cannot be asked, or somebody writes for too long.
    """
    with database.read() as connection:
        newest = int(connection.scalar(select(func.max(table.c.number))) or 0)
        # Asked after it: who took a smaller number is seen here, or is done. SQLite's writers come
        # one after the other.
        writing = set() if database.is_sqlite else set(connection.scalars(_WRITING))
    patience = time.monotonic() + database.busy_seconds
    while writing:
        if time.monotonic() > patience:
            raise StorageFailed(
                f"Interactions have been written or removed for {database.busy_seconds} s by one "
                "transaction; see that it ends (pg_stat_activity)"
            )
        time.sleep(POLL_SECONDS)
        with database.read() as connection:
            writing &= set(connection.scalars(_WRITING))
    return newest


def end_of(database: Database, query: Query, rows: int, *, after: int, until: int) -> int | None:
    """Return the number of the last of the next so many; None where there are fewer."""
    wanted = select(table.c.number).where(*_conditions(query, after, until))
    with database.read() as connection:
        last = connection.scalar(wanted.order_by(table.c.number).offset(rows - 1).limit(1))
    return None if last is None else int(last)


def begin_of_latest(database: Database, query: Query, rows: int, *, until: int) -> int:
    """Return after which number the latest so many come; 0 where there are no more than that."""
    wanted = select(table.c.number).where(*_conditions(query, 0, until))
    with database.read() as connection:
        before = wanted.order_by(table.c.number.desc()).offset(rows).limit(1)
        return int(connection.scalar(before) or 0)


def count(database: Database, query: Query, *, after: int, until: int, most: int) -> int:
    """Return how many there are, `most` at most."""
    wanted = select(table.c.number).where(*_conditions(query, after, until)).limit(most)
    with database.read() as connection:
        return int(connection.scalar(select(func.count()).select_from(wanted.subquery())) or 0)


def ahead(
    database: Database, query: Query, *, now: datetime, tolerance: timedelta = TOLERANCE
) -> int:
    """Return how many of those that were written in the time of a query are dated after now.

    A clock was ahead. They were written after the first one of that time; what was written before
    it says nothing of it.
    """
    first = select(func.min(table.c.number)).where(*query.conditions()).scalar_subquery()
    others = replace(query, since=now + tolerance, until=None)
    with database.read() as connection:
        found = select(func.count()).where(table.c.number > first, *others.conditions())
        return int(connection.scalar(found) or 0)


def _conditions(query: Query, after: int, until: int) -> list[ColumnElement[bool]]:
    return [table.c.number > after, table.c.number <= until, *query.conditions()]

"""Forgets what is no longer needed: the steps of finished jobs soon, the jobs themselves later."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, delete, select, update

from infra.database.engine import Database
from infra.jobs.records import FINISHED
from infra.jobs.tables import job

BATCH = 500
STEPS = timedelta(minutes=1)
"""How long the steps of a job outlive it, so that whoever runs it still can end in peace."""


def sweep(
    database: Database,
    *,
    forget: Callable[[Sequence[str]], None],
    now: datetime,
    keep: timedelta | None,
) -> int:
    """Drop the steps of jobs that will not run again, and jobs that ended longer than `keep` ago.

    Args:
        database: where the jobs are.
        forget: drops the steps of workflows, given their ids.
        now: the time.
        keep: how long a finished job can be read; `None` for ever.

    Returns:
        How many jobs lost something.
    """
    over = job.c.state.in_(("succeeded", "cancelled")) & (job.c.finished_at < now - STEPS)
    spent = _select(database, over & job.c.has_steps)
    forget(_workflows(spent))
    old: Sequence[Row[Any]] = []
    if keep is not None:
        old = _select(database, job.c.state.in_(FINISHED) & (job.c.finished_at < now - keep))
        forget(_workflows(row for row in old if row.has_steps))
    if spent or old:
        with database.write() as connection:
            connection.execute(
                update(job).where(job.c.id.in_([row.id for row in spent])).values(has_steps=False)
            )
            connection.execute(delete(job).where(job.c.id.in_([row.id for row in old])))
    return len(spent) + len(old)


def _select(database: Database, condition: Any) -> Sequence[Row[Any]]:
    query = select(job.c.id, job.c.run, job.c.has_steps).where(condition)
    with database.read() as connection:
        return list(connection.execute(query.order_by(job.c.number).limit(BATCH)))


def _workflows(rows: Iterable[Row[Any]]) -> list[str]:
    return [f"{row.id}:{run}" for row in rows for run in range(row.run + 1)]

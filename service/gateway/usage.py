"""What calls used, by day, key and model: added up in the database, reported as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Literal, TypeAlias

from sqlalchemy import Connection, delete, func, insert, select, update

from infra.database.engine import Database
from infra.database.money import usage
from service.gateway.counts import Count, UsageId

Column: TypeAlias = Literal["day", "key", "model", "tenant"]
COLUMNS: tuple[Column, ...] = ("day", "key", "model", "tenant")
FIGURES = ("requests", "interrupted", "prompt_tokens", "completion_tokens", "cost")
KEEP_DAYS = 400
"""Of usage and of the accounts of past days: a year, and time to look at it."""
MAX_ROWS = 10_000
_FIELDS = {
    "day": usage.c.day,
    "key": usage.c.key_id,
    "model": usage.c.model,
    "tenant": usage.c.tenant,
}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a report; a column that it was not asked by is None."""

    day: str | None
    key: str | None
    """The key's id; empty for calls without a key."""
    model: str | None
    tenant: str | None
    count: Count


def report(
    database: Database,
    by: Sequence[Column],
    *,
    since: date | None = None,
    until: date | None = None,
    limit: int = MAX_ROWS,
) -> list[Row]:
    """Add usage up by some columns, ordered by them.

    Args:
        database: where it is.
        by: what the lines are told apart by; empty adds up everything.
        since: the first day.
        until: the last day.
        limit: of lines.
    """
    columns = [_FIELDS[name].label(name) for name in dict.fromkeys(by)]
    sums = [func.sum(usage.c[name]).label(name) for name in FIGURES]
    query = select(*columns, *sums).limit(limit)
    if since is not None:
        query = query.where(usage.c.day >= since.isoformat())
    if until is not None:
        query = query.where(usage.c.day <= until.isoformat())
    if columns:
        query = query.group_by(*columns).order_by(*columns)
    with database.read() as connection:
        found = [row._asdict() for row in connection.execute(query)]
    return [
        Row(
            day=row.get("day"),
            key=row.get("key"),
            model=row.get("model"),
            tenant=row.get("tenant"),
            count=Count(*(int(row[name] or 0) for name in FIGURES)),
        )
        for row in found
    ]


def record_usage(connection: Connection, counts: Mapping[UsageId, Count]) -> None:
    """Add what calls used to the table of usage."""
    for (day, key_id, model, tenant), count in sorted(counts.items()):
        values = {
            "requests": count.requests,
            "interrupted": count.interrupted,
            "prompt_tokens": count.prompt_tokens,
            "completion_tokens": count.completion_tokens,
            "cost": count.cost,
        }
        this = (usage.c.day == day, usage.c.key_id == key_id, usage.c.model == model)
        done = connection.execute(
            update(usage)
            .where(*this)
            .values({name: usage.c[name] + value for name, value in values.items()})
        )
        if not done.rowcount:
            connection.execute(
                insert(usage).values(day=day, key_id=key_id, model=model, tenant=tenant, **values)
            )


def prune(database: Database, *, now: datetime | None = None, keep_days: int = KEEP_DAYS) -> int:
    """Forget usage that is older than `keep_days`; returns how many rows went."""
    first = ((now or datetime.now(UTC)) - timedelta(days=keep_days)).date().isoformat()
    with database.write() as connection:
        return int(connection.execute(delete(usage).where(usage.c.day < first)).rowcount)

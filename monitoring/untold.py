"""Events that receivers have not been told yet: kept with their windows until each has been."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, delete, insert, select, update

from infra.database.engine import Database
from infra.database.monitoring_tables import watch_result as result
from infra.database.monitoring_tables import watch_untold as table
from monitoring.triggers import Event

RETRY = timedelta(minutes=1)
"""After which a receiver that could not be reached is tried again."""
GIVEN_UP = timedelta(days=3)
"""What nobody could be told for so long is news no more; it stays in the stored windows."""
SUMMARY = "summary"
"""Of a stored report, what its event says first."""
Tell = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class Untold:
    """An event that a receiver is still to be told of."""

    number: int
    """Of the window."""
    receiver: str
    due: datetime
    event: Event


class UntoldEvents:
    """What is kept of them in the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> list[Untold]:
        """Return them in the order of their windows."""
        joined = select(table, result).join(result, result.c.number == table.c.number)
        with self._database.read() as connection:
            rows = connection.execute(joined.order_by(table.c.number, table.c.receiver)).all()
        return [
            Untold(
                row.number,
                row.receiver,
                row.due,
                Event(row.monitor, row.action, row.at, row.report[SUMMARY], row.report),
            )
            for row in rows
        ]

    def remove(self, each: Untold) -> None:
        with self._database.write() as connection:
            connection.execute(delete(table).where(*_is(each)))

    def put_off(self, each: Untold, due: datetime) -> None:
        with self._database.write() as connection:
            connection.execute(update(table).where(*_is(each)).values(due=due))


def keep(connection: Connection, number: int, receivers: Sequence[str], *, due: datetime) -> None:
    """Keep an event, in the transaction that stores its window, until all have been told."""
    if receivers:
        rows = [{"number": number, "receiver": name, "due": due} for name in receivers]
        connection.execute(insert(table), rows)


def tell(
    untold: UntoldEvents,
    receivers: Mapping[str, Tell],
    *,
    now: datetime,
    failed: Callable[[str, Exception], None],
) -> None:
    """Tell each receiver what it has not been told, in order; one that fails keeps no other.

    Who dies between telling and noting it tells again: an event is told once at least.
    """
    waiting = set()
    for each in untold.all():
        is_later = now < each.due <= now + RETRY  # beyond that, a clock was ahead
        if each.receiver in waiting or is_later:
            waiting.add(each.receiver)
        elif now - each.event.at > GIVEN_UP:
            untold.remove(each)
        elif each.receiver not in receivers:  # another process may have it in its settings
            waiting.add(each.receiver)
        else:
            try:
                receivers[each.receiver](each.event)
            except Exception as error:  # noqa: BLE001  a receiver is a plug-in
                failed(each.receiver, error)
                waiting.add(each.receiver)
                untold.put_off(each, now + RETRY)
            else:
                untold.remove(each)


def _is(each: Untold) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return table.c.number == each.number, table.c.receiver == each.receiver

"""What the watch found, window by window: stored, read back, and told to the metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from infra.database.engine import Database
from infra.database.monitoring_tables import watch_position as position
from infra.database.monitoring_tables import watch_result as table
from infra.database.new_rows import insert_new
from infra.errors import Conflict
from monitoring import untold
from monitoring.alarm import Judged
from monitoring.standing_metrics import Reading
from monitoring.triggers import Start

VERDICTS = ("drift", "stable", "not_enough_data", "incomparable")
KEPT = 1_000
"""Windows of one monitor that led to nothing, and as many that led to something; the oldest go
first. What was started counts for a cool-down, however many windows that has."""
DUE = "ragstone_drift_due_timestamp_seconds"
LOCK = 0x7761_7463
"""Held while a window is stored, so that of two that were judged after the same one is refused."""


@dataclass(frozen=True, slots=True)
class Result:
    """A window as it was judged, with the report on it."""

    monitor: str
    judged: Judged
    report: Mapping[str, Any]
    """JSON values, as `monitoring.watch` writes them."""


class JudgedAlready(Conflict):
    """Another process has judged the same window, or these rows."""


@dataclass(frozen=True, slots=True)
class Moved:
    """What a window of so many rows does to where the last one ended."""

    before: int
    after: int


@dataclass(frozen=True, slots=True)
class Position:
    """Where the last window of so many rows ended, and what is known of the next one."""

    number: int
    """Of the last interaction that was in one."""
    missing: int
    """Rows to a full window, when last looked at."""
    due: datetime
    """When it is looked at next."""


class WatchResults:
    """The results of all monitors."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(
        self,
        result: Result,
        *,
        after: int | None = None,
        start: Start | None = None,
        moved: Moved | None = None,
        receivers: Sequence[str] = (),
    ) -> None:
        """Store a result, with what it starts or not at all, and let go of what is too old.

        Where its window ended is stored with it, so that no row is in two windows or in none, and
        who has to be told of it.

        Args:
            result: of one window.
            after: the number of the window before, as it was judged; any if None.
            start: starts something, in the same transaction.
            moved: of a window of so many rows.
            receivers: who is to be told.

        Raises:
            JudgedAlready: another process has judged a window meanwhile; nothing is stored.
        """
        judged = result.judged
        with self._database.write(lock=LOCK) as connection:
            _move(connection, result.monitor, moved)
            if after is not None and _last(connection, result.monitor) != after:
                raise JudgedAlready(f"A window of {result.monitor!r} was judged meanwhile")
            started = {} if start is None else {"started": start(connection)}
            added = connection.execute(
                insert(table).values(
                    monitor=result.monitor,
                    at=judged.at,
                    verdict=judged.verdict,
                    is_alarm=judged.is_alarm,
                    action=judged.action,
                    report={**result.report, **started},
                )
            )
            number = added.inserted_primary_key[0]  # type: ignore[index]
            untold.keep(connection, number, receivers, due=judged.at)
            _let_go(connection, result.monitor)

    def last(self, monitor: str) -> int:
        """Return the number of the latest window of a monitor; 0 if there is none."""
        with self._database.read() as connection:
            return _last(connection, monitor)

    def position(self, monitor: str) -> Position | None:
        """Return where the last window ended; None unless windows are so many rows."""
        columns = (position.c.number, position.c.missing, position.c.due)
        with self._database.read() as connection:
            row = connection.execute(
                select(*columns).where(position.c.monitor == monitor)
            ).one_or_none()
        return None if row is None else Position(*row)

    def begin(self, monitor: str, place: Position) -> Position:
        """Say where the first window begins; where that was said before, it stays. Returns it."""
        values = {"number": place.number, "missing": place.missing, "due": place.due}
        columns = {name: [value] for name, value in {"monitor": monitor, **values}.items()}
        with self._database.write() as connection:
            insert_new(connection, position, columns)
        return self.position(monitor) or place

    def wait(self, monitor: str, *, missing: int, due: datetime) -> None:
        """Say how many rows are missing to the next window, and when it is looked at next."""
        with self._database.write() as connection:
            connection.execute(
                update(position)
                .where(position.c.monitor == monitor)
                .values(missing=missing, due=due)
            )

    def judged(self, monitor: str) -> list[Judged]:
        """Return how the windows of a monitor were judged, oldest first, without their reports."""
        columns = (table.c.at, table.c.verdict, table.c.is_alarm, table.c.action)
        statement = select(*columns).where(table.c.monitor == monitor).order_by(table.c.number)
        with self._database.read() as connection:
            return [Judged(*row) for row in connection.execute(statement)]

    def latest(self, monitor: str, *, limit: int = KEPT) -> list[Result]:
        """Return the latest results of a monitor, oldest first."""
        statement = select(table).where(table.c.monitor == monitor)
        with self._database.read() as connection:
            rows = connection.execute(statement.order_by(table.c.number.desc()).limit(limit)).all()
        return [_read(row) for row in reversed(rows)]

    def readings(self, monitors: Sequence[str]) -> Iterator[Reading]:
        """Yield what the metrics tell of monitors."""
        with self._database.read() as connection:
            newest = select(func.max(table.c.number)).where(table.c.monitor.in_(monitors))
            rows = connection.execute(
                select(table).where(table.c.number.in_(newest.group_by(table.c.monitor)))
            ).all()
            counts = connection.execute(
                select(table.c.monitor, table.c.action, func.count().label("times"))
                .where(table.c.monitor.in_(monitors), table.c.action.is_not(None))
                .group_by(table.c.monitor, table.c.action)
            ).all()
            places = connection.execute(
                select(position).where(position.c.monitor.in_(monitors))
            ).all()
        for row in rows:
            yield from _readings(_read(row))
        for row in counts:
            yield Reading("ragstone_drift_triggers", (row.monitor, row.action), row.times)
        for row in places:
            yield _due(row.monitor, row.due.timestamp())
            yield Reading("ragstone_drift_window_rows", (row.monitor, "missing"), row.missing)


def _last(connection: Connection, monitor: str) -> int:
    newest = select(func.max(table.c.number)).where(table.c.monitor == monitor)
    return int(connection.scalar(newest) or 0)


def _let_go(connection: Connection, monitor: str) -> None:
    for is_kept in (table.c.action.is_(None), table.c.action.is_not(None)):
        mine = (table.c.monitor == monitor, is_kept)
        numbers = select(table.c.number).where(*mine).order_by(table.c.number.desc())
        last = connection.scalar(numbers.offset(KEPT).limit(1))
        if last is not None:
            connection.execute(delete(table).where(*mine, table.c.number <= last))


def _move(connection: Connection, monitor: str, moved: Moved | None) -> None:
    """Have the next window begin where this one ended; one by time begins anew."""
    mine = position.c.monitor == monitor
    if moved is None:
        connection.execute(delete(position).where(mine))
        return
    stands = update(position).where(mine, position.c.number == moved.before)
    if connection.execute(stands.values(number=moved.after)).rowcount != 1:
        raise JudgedAlready(f"The rows after {moved.before} were judged for {monitor!r} already")


def _due(name: str, seconds: float) -> Reading:
    return Reading(DUE, (name,), seconds)


def _readings(result: Result) -> Iterator[Reading]:
    name, report = result.monitor, result.report
    for verdict in VERDICTS:
        value = float(verdict == result.judged.verdict)
        yield Reading("ragstone_drift_verdict", (name, verdict), value)
    yield Reading("ragstone_drift_alarm", (name,), float(result.judged.is_alarm))
    seconds = result.judged.at.timestamp()
    yield Reading("ragstone_drift_run_timestamp_seconds", (name,), seconds)
    yield _due(name, float(report["due"]))
    for window, rows in report["rows"].items():
        yield Reading("ragstone_drift_window_rows", (name, window), rows)
    for each in report["features"]:
        labels = (name, each["feature"])
        if each["effect"] is not None:
            yield Reading("ragstone_drift_effect_ratio", labels, each["weight"])
        if each["p_adjusted"] is not None:
            yield Reading("ragstone_drift_p_value", labels, each["p_adjusted"])
    yield from _of_streams(name, report["streams"])
    yield from _of_metrics(name, report["performance"])


def _of_streams(name: str, streams: Sequence[Mapping[str, Any]]) -> Iterator[Reading]:
    for each in streams:
        which = (name, each["feature"], each["detector"])
        is_sure = float(each["verdict"] == "drift")
        yield Reading("ragstone_drift_stream_alarm", which, is_sure)


def _of_metrics(name: str, performance: Sequence[Mapping[str, Any]]) -> Iterator[Reading]:
    for each in performance:
        is_refused = float(each["estimate"] is None)
        yield Reading("ragstone_performance_refused", (name, each["metric"]), is_refused)
        for bound in ("estimate", "low", "high"):
            if each[bound] is not None:
                which = (name, each["metric"], bound)
                yield Reading("ragstone_performance_estimate", which, each[bound])
        if each["floor"] is not None:
            yield Reading("ragstone_performance_floor", (name, each["metric"]), each["floor"])


def _read(row: Any) -> Result:
    return Result(row.monitor, Judged(row.at, row.verdict, row.is_alarm, row.action), row.report)

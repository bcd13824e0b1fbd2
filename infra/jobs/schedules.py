"""Jobs that start by the clock, once per tick, however many workers look at it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import Connection, Row, delete, insert, select, update

from infra.errors import InvalidRequest, NotFound
from infra.jobs import cron
from infra.jobs.definitions import Json, Options, plain
from infra.jobs.tables import job_schedule

if TYPE_CHECKING:
    from infra.jobs.queue import Jobs

CatchUp = Literal["skip", "last", "all"]
PUNCTUAL = timedelta(minutes=1)
"""A tick that is seen later than this was missed: nobody was there at the time."""
BATCH = 1000


@dataclass(frozen=True, slots=True)
class Schedule:
    """A job that starts whenever a cron expression says so."""

    name: str
    job: str
    cron: str
    """Five fields, or an alias such as `@daily`."""
    time_zone: str = "UTC"
    catch_up: CatchUp = "last"
    """Which of the ticks that nobody saw in time still start a job: none, the last one, or all."""
    arguments: dict[str, Json] | None = None
    tenant: str = "default"
    priority: int = 0
    paused: bool = False


class Schedules:
    """The schedules of one queue.

    Each tick starts a job under a key of its own, in the transaction that moves the schedule past
    it: a tick fires once, over all workers, restarts and clocks that are set back.
    """

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._database = jobs.database

    def put(self, schedule: Schedule) -> None:
        """Add a schedule, or change the one of that name; it begins with the next tick from now.

        A change that leaves expression and time zone alone forgets no tick.

        Raises:
            InvalidRequest: the expression, the time zone or the catch-up rule is not one.
        """
        cron.check(schedule.cron, schedule.time_zone)
        if schedule.catch_up not in ("skip", "last", "all"):
            raise InvalidRequest(
                f"Unknown catch-up rule {schedule.catch_up!r}; use skip, last or all",
                parameter="catch_up",
            )
        values = {
            "job": schedule.job,
            "cron": schedule.cron,
            "time_zone": schedule.time_zone,
            "catch_up": schedule.catch_up,
            "arguments": plain(schedule.arguments or {}, f"Arguments of {schedule.name!r}"),
            "tenant": schedule.tenant,
            "priority": schedule.priority,
            "paused": schedule.paused,
        }
        with self._database.write() as connection:
            self._put(connection, schedule.name, values)

    def remove(self, name: str) -> None:
        """Drop a schedule; jobs it started stay.

        Raises:
            NotFound: there is none of that name.
        """
        with self._database.write() as connection:
            gone = connection.execute(delete(job_schedule).where(job_schedule.c.name == name))
            if not gone.rowcount:
                raise NotFound("schedule", name, among=_names(connection))

    def pause(self, name: str, *, paused: bool = True) -> None:
        """Stop a schedule, or let it go on; ticks in between do not start anything.

        Raises:
            NotFound: there is none of that name.
        """
        values: dict[str, Any] = {"paused": paused}
        if not paused:
            values["last_tick"] = self._jobs.now()
        with self._database.write() as connection:
            changed = connection.execute(
                update(job_schedule).where(job_schedule.c.name == name).values(**values)
            )
            if not changed.rowcount:
                raise NotFound("schedule", name, among=_names(connection))

    def list(self) -> Sequence[Schedule]:
        """Return all schedules by name."""
        with self._database.read() as connection:
            rows = connection.execute(select(job_schedule).order_by(job_schedule.c.name))
            return [_read(row) for row in rows]

    def next_tick(self, name: str) -> datetime:
        """Return when a schedule fires next.

        Raises:
            NotFound: there is none of that name.
        """
        for each in self.list():
            if each.name == name:
                return next(cron.ticks(each.cron, each.time_zone, after=self._jobs.now()))
        raise NotFound("schedule", name, among=[each.name for each in self.list()])

    def fire(self) -> int:
        """Start the jobs that are due; returns how many. Workers call this all the time."""
        now = self._jobs.now()
        with self._database.read() as connection:
            rows = connection.execute(
                select(job_schedule).where(
                    job_schedule.c.paused.is_(False), job_schedule.c.last_tick < now
                )
            ).all()
        return sum(self._fire(row, now=now) for row in rows)

    def _fire(self, row: Row[Any], *, now: datetime) -> int:
        upcoming = cron.ticks(row.cron, row.time_zone, after=row.last_tick)
        due = list(islice(takewhile(lambda tick: tick <= now, upcoming), BATCH))
        if not due:
            return 0
        chosen = _choose(due, row.catch_up, now=now)
        with self._database.write() as connection:
            moved = connection.execute(
                update(job_schedule)
                .where(
                    job_schedule.c.name == row.name,
                    job_schedule.c.last_tick == row.last_tick,
                    job_schedule.c.cron == row.cron,
                    job_schedule.c.time_zone == row.time_zone,
                )
                .values(last_tick=due[-1])
            )
            if not moved.rowcount:  # another worker was faster, or the schedule changed
                return 0
            for tick in chosen:
                options = Options(
                    key=f"schedule/{row.name}/{tick.isoformat()}",
                    tenant=row.tenant,
                    priority=row.priority,
                )
                self._jobs.enqueue(row.job, row.arguments, options=options, connection=connection)
        return len(chosen)

    def _put(self, connection: Connection, name: str, values: dict[str, Any]) -> None:
        now = self._jobs.now()
        this = job_schedule.c.name == name
        before = connection.execute(select(job_schedule).where(this)).one_or_none()
        if before is None:
            connection.execute(
                insert(job_schedule).values(name=name, last_tick=now, created_at=now, **values)
            )
            return
        if (before.cron, before.time_zone) != (values["cron"], values["time_zone"]):
            values = {**values, "last_tick": max(now, before.last_tick)}
        connection.execute(update(job_schedule).where(this).values(**values))


def _choose(due: Sequence[datetime], rule: CatchUp, *, now: datetime) -> Sequence[datetime]:
    if rule == "all":
        return due
    if rule == "last":
        return due[-1:]
    return [tick for tick in due if now - tick <= PUNCTUAL]


def _names(connection: Connection) -> Sequence[str]:
    return connection.scalars(select(job_schedule.c.name)).all()


def _read(row: Row[Any]) -> Schedule:
    return Schedule(
        name=row.name,
        job=row.job,
        cron=row.cron,
        time_zone=row.time_zone,
        catch_up=row.catch_up,
        arguments=row.arguments,
        tenant=row.tenant,
        priority=row.priority,
        paused=row.paused,
    )

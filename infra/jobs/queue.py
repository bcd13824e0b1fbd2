"""Starts jobs, reads how they fare, cancels and requeues them; needs no worker in this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, case, func, insert, literal, select, update
from sqlalchemy.exc import IntegrityError

from infra.database.engine import Database
from infra.database.schema import Moment
from infra.errors import Conflict, InvalidRequest, NotFound, NotReady
from infra.jobs.definitions import Definition, Json, Options, Registry, Resources, plain
from infra.jobs.lifecycle import note
from infra.jobs.records import Depth, Job, LogLine, PastAttempt, State, WorkerRecord, read_job
from infra.jobs.schedules import Schedules
from infra.jobs.tables import job, job_attempt, job_log, job_worker
from infra.security import new_id

WATCH_SECONDS = 0.25


def utc_now() -> datetime:
    return datetime.now(UTC)


class Jobs:
    """The queue of one database; safe to share between threads.

    Args:
        registry: the jobs this process has code for; others can be started too, for another
            process to run.
        now: the clock that delays, retries and schedules go by.
    """

    def __init__(
        self, database: Database, registry: Registry, *, now: Callable[[], datetime] = utc_now
    ) -> None:
        self.database = database
        self.registry = registry
        self.now = now
        self.schedules = Schedules(self)
        self._listeners: list[Callable[[], None]] = []

    def start(
        self,
        name: str,
        arguments: dict[str, Json] | None = None,
        *,
        options: Options | None = None,
        connection: Connection | None = None,
    ) -> Job:
        """Queue a job, durably.

        Args:
            name: of the job, as its definition has it.
            arguments: passed to its function by name.
            options: its key, tenant, priority, resources, and when it may start.
            connection: a write transaction of the caller's, to start the job together with other
                changes or not at all; call `tell` once it has committed.

        Raises:
            InvalidRequest: the arguments are not JSON, or not what the function takes.
            Conflict: the key was used before, with other arguments.
        """
        if name in self.registry.names:
            self.registry.get(name).check(arguments or {})
        return self.enqueue(name, arguments, options=options, connection=connection)

    def enqueue(
        self,
        name: str,
        arguments: dict[str, Json] | None = None,
        *,
        options: Options | None = None,
        connection: Connection | None = None,
    ) -> Job:
        """Queue a job as `start` does, without asking whether its function takes the arguments."""
        is_known = name in self.registry.names
        kind = self.registry.get(name) if is_known else Definition(name, _elsewhere)
        row = self._row(kind, arguments or {}, options or Options())
        with self._within(connection) as transaction:
            waiting = _waiting(transaction, row) if kind.behaviour.join else None
            started = waiting or self._insert(transaction, row)
        if connection is None:
            self.tell()
        return started

    def get(self, job_id: str) -> Job:
        """Return a job.

        Raises:
            NotFound: there is none with this id.
        """
        with self.database.read() as connection:
            return read_job(_find(connection, job_id))

    def find(self, job_ids: Iterable[str]) -> dict[str, Job]:
        """Return those of the jobs that there are, by id."""
        wanted = tuple(job_ids)
        if not wanted:
            return {}
        query = select(job).where(job.c.id.in_(wanted))
        with self.database.read() as connection:
            return {row.id: read_job(row) for row in connection.execute(query)}

    def hold(self, connection: Connection, job_id: str) -> Job | None:
        """Return a job, which nobody else changes before the write transaction ends; or None."""
        query = select(job).where(job.c.id == job_id).with_for_update()
        row = connection.execute(query).one_or_none()
        return None if row is None else read_job(row)

    def list(
        self,
        *,
        state: State | None = None,
        name: str | None = None,
        tenant: str | None = None,
        limit: int = 50,
        before: str | None = None,
    ) -> Sequence[Job]:
        """Return jobs, newest first; `before` is the id of the last one of the page before."""
        query = _filtered(select(job), state=state, name=name, tenant=tenant)
        with self.database.read() as connection:
            if before is not None:
                query = query.where(job.c.number < _find(connection, before).number)
            rows = connection.execute(query.order_by(job.c.number.desc()).limit(limit))
            return [read_job(row) for row in rows]

    def dead_letters(self, *, tenant: str | None = None, limit: int = 50) -> Sequence[Job]:
        """Return the jobs that were given up, newest first."""
        return self.list(state="failed", tenant=tenant, limit=limit)

    def cancel(self, job_id: str, *, connection: Connection | None = None) -> Job:
        """End a job: at once if it waits, at its next step, sleep or report if it runs.

        One that has left programs running waits for a worker to end them. A job that is finished
        stays as it is. A `connection` is what it is to `start`.
        """
        now = self.now()
        with self._within(connection) as transaction:
            waiting = transaction.execute(
                update(job)
                .where(job.c.id == job_id, job.c.state == "queued", ~job.c.detached)
                .values(state="cancelled", finished_at=now)
            )
            if not waiting.rowcount:
                transaction.execute(
                    update(job)
                    .where(job.c.id == job_id, job.c.state.in_(("queued", "running")))
                    .values(cancel_requested=True, available_at=now)
                )
            cancelled = read_job(_find(transaction, job_id))
        if connection is None:
            self.tell()
        return cancelled

    def requeue(
        self, job_id: str, *, from_scratch: bool = False, connection: Connection | None = None
    ) -> Job:
        """Give a failed or cancelled job another chance, with its counters at zero.

        It goes on after the last step it finished, unless `from_scratch`. A `connection` is what
        it is to `start`.

        Raises:
            Conflict: it is queued, running or succeeded.
        """
        now = self.now()
        with self._within(connection) as transaction:
            row = _find(transaction, job_id)
            changed = transaction.execute(
                update(job)
                .where(job.c.id == job_id, job.c.state.in_(("failed", "cancelled")))
                .values(
                    state="queued",
                    cancel_requested=False,
                    failures=0,
                    crashes=0,
                    run=row.run + from_scratch,
                    available_at=now,
                    finished_at=None,
                )
            )
            if not changed.rowcount:
                raise Conflict(
                    f"Job {job_id!r} is {row.state}; only a failed or cancelled one is requeued"
                )
            note(transaction, job_id, message="requeued", now=now)
            requeued = read_job(_find(transaction, job_id))
        if connection is None:
            self.tell()
        return requeued

    def logs(self, job_id: str, *, after: int = 0, limit: int = 1000) -> Sequence[LogLine]:
        """Return log lines in order; `after` is the sequence of the last one already read."""
        with self.database.read() as connection:
            _find(connection, job_id)
            rows = connection.execute(
                select(job_log)
                .where(job_log.c.job_id == job_id, job_log.c.id > after)
                .order_by(job_log.c.id)
                .limit(limit)
            )
            return [LogLine(row.id, row.attempt, row.at, row.level, row.message) for row in rows]

    def attempts(self, job_id: str) -> Sequence[PastAttempt]:
        """Return every time the job was run, in order."""
        with self.database.read() as connection:
            _find(connection, job_id)
            rows = connection.execute(
                select(job_attempt).where(job_attempt.c.job_id == job_id).order_by(job_attempt.c.id)
            )
            return [
                PastAttempt(
                    row.id, row.worker_id, row.started_at, row.finished_at, row.outcome, row.error
                )
                for row in rows
            ]

    def depth(self) -> Depth:
        """Return how much there is to do."""
        now = self.now()
        with self.database.read() as connection:
            rows = connection.execute(
                select(job.c.state, func.count().label("jobs")).group_by(job.c.state)
            )
            counts = {row.state: row.jobs for row in rows}
            oldest = connection.scalar(
                select(func.min(job.c.available_at)).where(
                    job.c.state == "queued", job.c.available_at <= now
                )
            )
        return Depth(
            queued=counts.get("queued", 0),
            running=counts.get("running", 0),
            failed=counts.get("failed", 0),
            oldest_seconds=(now - oldest).total_seconds() if oldest else 0.0,
        )

    def workers(self) -> Sequence[WorkerRecord]:
        """Return the workers that are alive, the oldest first."""
        with self.database.read() as connection:
            rows = connection.execute(select(job_worker).order_by(job_worker.c.started_at))
            return [
                WorkerRecord(
                    id=row.id,
                    process=row.process,
                    names=tuple(row.names),
                    resources=Resources(row.cpu, row.gpu, row.memory_bytes),
                    slots=row.slots,
                    started_at=row.started_at,
                    seen_at=row.seen_at,
                )
                for row in rows
            ]

    def watch(self, job_id: str, *, poll_seconds: float = WATCH_SECONDS) -> Iterator[Job]:
        """Yield the job now and after every change, until it is finished."""
        seen = None
        while seen is None or not seen.is_finished:
            current = self.get(job_id)
            if current != seen:
                yield current
                seen = current
            else:
                time.sleep(poll_seconds)

    def wait(self, job_id: str, *, timeout_seconds: float = 60.0) -> Job:
        """Return the job once it is finished.

        Raises:
            NotReady: it still is not after `timeout_seconds`.
        """
        deadline = time.monotonic() + timeout_seconds
        while not (current := self.get(job_id)).is_finished:
            if time.monotonic() > deadline:
                raise NotReady(f"Job {job_id!r} is still {current.state}; wait longer or cancel it")
            time.sleep(0.05)
        return current

    def subscribe(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` whenever this object changed the queue; returns how to stop that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def tell(self) -> None:
        """Have the worker of this process look at the queue at once."""
        for listener in tuple(self._listeners):
            listener()

    @contextmanager
    def _within(self, connection: Connection | None) -> Iterator[Connection]:
        if connection is not None:
            yield connection
        else:
            with self.database.write() as transaction:
                yield transaction

    def _row(
        self, kind: Definition, arguments: dict[str, Json], options: Options
    ) -> dict[str, Any]:
        if options.at is not None and options.at.tzinfo is None:
            raise InvalidRequest(
                f"options.at {options.at!r} has no time zone; add one", parameter="at"
            )
        now = self.now()
        resources = kind.resources if options.resources is None else options.resources
        given = plain(arguments, f"The arguments of job {kind.name!r}")
        return {
            "id": new_id("job_"),
            "name": kind.name,
            "tenant": options.tenant,
            "key": options.key,
            "priority": options.priority,
            "lane": kind.lane(given),
            "cpu": resources.cpu,
            "gpu": resources.gpu,
            "memory_bytes": resources.memory_bytes,
            "arguments": given,
            "state": "queued",
            "available_at": options.at.astimezone(UTC) if options.at else now,
            "created_at": now,
        }

    def _insert(self, connection: Connection, row: dict[str, Any]) -> Job:
        try:
            with connection.begin_nested():
                connection.execute(insert(job).values(**row))
        except IntegrityError:
            # Its key was used before; the winner of a race has committed by now.
            existing = connection.execute(
                select(job).where(
                    job.c.name == row["name"],
                    job.c.tenant == row["tenant"],
                    job.c.key == row["key"],
                )
            ).one()
            if existing.arguments != row["arguments"]:
                raise Conflict(
                    f"Key {row['key']!r} was used for another {row['name']!r} job "
                    f"({existing.id}); use a new key for other arguments"
                ) from None
            return read_job(existing)
        return read_job(_find(connection, row["id"]))


def _elsewhere(attempt: object, **arguments: Json) -> Json:
    """Stands for the function of a job that another process has the code for."""
    raise NotImplementedError


def _waiting(connection: Connection, row: dict[str, Any]) -> Job | None:
    """Return the waiting job of the same work, held so that it starts after this transaction.

    One that waits to be tried again waits no longer.
    """
    at = literal(row["available_at"], Moment())
    held = connection.execute(
        update(job)
        .where(
            job.c.name == row["name"],
            job.c.tenant == row["tenant"],
            job.c.lane == row["lane"],
            job.c.state == "queued",
        )
        .values(available_at=case((job.c.available_at > at, at), else_=job.c.available_at))
        .returning(job)
    ).all()
    return next((read_job(each) for each in held if each.arguments == row["arguments"]), None)


def _find(connection: Connection, job_id: str) -> Row[Any]:
    row = connection.execute(select(job).where(job.c.id == job_id)).one_or_none()
    if row is None:
        raise NotFound("job", job_id)
    return row


def _filtered(
    query: Select[Any], *, state: State | None, name: str | None, tenant: str | None
) -> Select[Any]:
    for column, value in ((job.c.state, state), (job.c.name, name), (job.c.tenant, tenant)):
        if value is not None:
            query = query.where(column == value)
    return query

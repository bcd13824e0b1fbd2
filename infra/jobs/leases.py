"""Who is alive: workers beat, watch each other beat, and take up the jobs of the dead."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, delete, insert, select, update

from infra.jobs import lifecycle
from infra.jobs.admission import Claimant, read_claim
from infra.jobs.definitions import Registry, Retries
from infra.jobs.lifecycle import Claim
from infra.jobs.processes import Process
from infra.jobs.tables import job, job_worker


def register(
    connection: Connection, claimant: Claimant, *, process: Process, now: datetime
) -> None:
    """Enter a worker among the living."""
    resources = claimant.capacity.resources
    connection.execute(
        insert(job_worker).values(
            id=claimant.worker_id,
            process=str(process),
            names=list(claimant.names),
            cpu=resources.cpu,
            gpu=resources.gpu,
            memory_bytes=resources.memory_bytes,
            slots=claimant.capacity.slots,
            beat=0,
            started_at=now,
            seen_at=now,
        )
    )


def beat(connection: Connection, worker_id: str, *, now: datetime) -> bool:
    """Show that a worker lives; `False` if the others took it for dead."""
    found = connection.execute(
        update(job_worker)
        .where(job_worker.c.id == worker_id)
        .values(beat=job_worker.c.beat + 1, seen_at=now)
    )
    return bool(found.rowcount)


def leave(connection: Connection, worker_id: str, *, now: datetime) -> None:
    """Strike a worker off in order; whatever it still runs goes back to the queue."""
    for held in held_by(connection, [worker_id]):
        lifecycle.release(connection, held, now=now)
    connection.execute(delete(job_worker).where(job_worker.c.id == worker_id))


def held_by(connection: Connection, worker_ids: Iterable[str]) -> list[Claim]:
    """Return what some workers run, as the database has it."""
    rows = connection.execute(
        select(job).where(job.c.state == "running", job.c.worker_id.in_(list(worker_ids)))
    )
    return [read_claim(row, fence=row.fence) for row in rows]


@dataclass(frozen=True, slots=True)
class Beat:
    worker_id: str
    process: str
    count: int


class Watch:
    """Finds dead workers without comparing clocks.

    A worker is dead if its process is seen to be gone, or if its beat has not moved for
    `lease_seconds` of the watcher's own time. A watcher that was away for more than half of that
    cannot say who was silent, and begins to count anew.
    """

    def __init__(self, *, lease_seconds: float, monotonic: Callable[[], float]) -> None:
        self._lease_seconds = lease_seconds
        self._monotonic = monotonic
        self._moved: dict[str, tuple[int, float]] = {}
        self._looked_at = monotonic()

    def dead(self, beats: Iterable[Beat]) -> list[Beat]:
        """Return those of the workers that are dead; called every second or so."""
        moment = self._monotonic()
        was_away = moment - self._looked_at > self._lease_seconds / 2
        self._looked_at = moment
        before, self._moved = self._moved, {}
        found = []
        for each in beats:
            count, since = before.get(each.worker_id, (each.count, moment))
            if count != each.count or was_away:
                since = moment
            self._moved[each.worker_id] = (each.count, since)
            if Process.parse(each.process).is_gone or moment - since >= self._lease_seconds:
                found.append(each)
        return found


def read_beats(connection: Connection) -> list[Beat]:
    rows = connection.execute(select(job_worker.c.id, job_worker.c.process, job_worker.c.beat))
    return [Beat(row.id, row.process, row.beat) for row in rows]


def reap(
    connection: Connection, dead: Iterable[Beat], *, registry: Registry, now: datetime
) -> list[Claim]:
    """Strike off dead workers and put their jobs back; return those jobs.

    One whose beat moved since it was read lives after all.
    """
    for each in dead:
        connection.execute(
            delete(job_worker).where(
                job_worker.c.id == each.worker_id, job_worker.c.beat == each.count
            )
        )
    rows = connection.execute(
        select(job).where(job.c.state == "running", job.c.worker_id.not_in(select(job_worker.c.id)))
    ).all()
    lost = [read_claim(row, fence=row.fence) for row in rows]
    return [
        each
        for each in lost
        if lifecycle.lose(connection, each, retries=_retries(registry, each.name), now=now)
    ]


class Orphans:
    """Finds jobs that no living worker has code for: a deploy took it away."""

    def __init__(self, *, grace_seconds: float, monotonic: Callable[[], float]) -> None:
        self._grace_seconds = grace_seconds
        self._monotonic = monotonic
        self._unknown: dict[str, float] = {}

    def names(self, connection: Connection) -> list[str]:
        """Return the names of waiting jobs that nobody knew for all of the grace time."""
        moment = self._monotonic()
        known = {name for names in connection.scalars(select(job_worker.c.names)) for name in names}
        waiting = connection.scalars(
            select(job.c.name).where(job.c.state == "queued").distinct()
        ).all()
        self._unknown = {
            name: self._unknown.get(name, moment) for name in waiting if name not in known
        }
        return [
            name for name, since in self._unknown.items() if moment - since >= self._grace_seconds
        ]


def give_up(connection: Connection, name: str, *, now: datetime) -> int:
    """Move the waiting jobs of a name that no worker knows to the dead letters."""
    error = (
        f"No running worker has code for job {name!r}: deploy a release that has it, "
        "then requeue the job"
    )
    waiting = select(job.c.id).where(job.c.state == "queued", job.c.name == name)
    ids = connection.scalars(waiting).all()
    for job_id in ids:
        connection.execute(
            update(job)
            .where(job.c.id == job_id, job.c.state == "queued")
            .values(state="failed", error=error, finished_at=now)
        )
        lifecycle.note(connection, job_id, message=error, now=now, level="error")
    return len(ids)


def _retries(registry: Registry, name: str) -> Retries:
    return registry.get(name).retries if name in registry.names else Retries()

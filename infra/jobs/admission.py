"""Which waiting jobs a worker takes: by priority, within what is free, within tenants' limits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, case, func, insert, or_, select, update

from infra.database.engine import Database
from infra.jobs.definitions import Resources
from infra.jobs.lifecycle import Claim
from infra.jobs.tables import job, job_attempt, job_worker

LOCK = 0x6A6F_6273  # "jobs": held while claiming, so that limits hold across workers
BATCH = 100


@dataclass(frozen=True, slots=True)
class TenantLimits:
    """How many jobs of one tenant run at the same time, over all workers."""

    default: int | None = None
    """`None`: as many as there is room for."""
    of: Mapping[str, int] = field(default_factory=dict)
    """For single tenants, instead of the default."""

    def full(self, running: Mapping[str, int]) -> list[str]:
        """Return the tenants that may start nothing more."""
        return [
            tenant
            for tenant in {*running, *self.of}
            if (limit := self.of.get(tenant, self.default)) is not None
            and running.get(tenant, 0) >= limit
        ]


@dataclass(frozen=True, slots=True)
class Capacity:
    """What one worker takes on at once."""

    resources: Resources
    slots: int
    """Jobs at the same time, whatever they need."""


@dataclass(frozen=True, slots=True)
class Claimant:
    """A worker, as admission sees it."""

    worker_id: str
    names: tuple[str, ...]
    capacity: Capacity
    limits: TenantLimits
    forgetful: frozenset[str] = frozenset()
    """Those of the names whose steps are not remembered."""
    detached: frozenset[str] = frozenset()
    """Those of the names whose programs live on without them."""
    widths: Mapping[str, int] = field(default_factory=dict)
    """By name, how many jobs of one lane run at a time, where that is not one."""


def claim(database: Database, claimant: Claimant, *, now: datetime) -> list[Claim]:
    """Take the jobs that this worker should run next; none if nothing fits.

    Jobs go by priority, then by age; before all others go those that were cancelled and have left
    programs running, past lanes and tenants' limits, to end them. One that fits the worker, but not
    beside what runs there now, keeps its share free: smaller jobs behind it cannot starve it.
    """
    with database.read() as connection:
        if connection.execute(_waiting(claimant, now=now).limit(1)).first() is None:
            return []
    # A power cut that undoes it undoes all that was done on the strength of it, too.
    with database.write(lock=LOCK, durable=False) as connection:
        if not _is_registered(connection, claimant.worker_id):
            return []
        return _take(connection, claimant, now=now)


def _take(connection: Connection, claimant: Claimant, *, now: datetime) -> list[Claim]:
    free, slots = _left(connection, claimant)
    if slots <= 0:
        return []
    running: Counter[str] = Counter()
    for tenant, count in connection.execute(
        select(job.c.tenant, func.count()).where(job.c.state == "running").group_by(job.c.tenant)
    ):
        running[tenant] = count
    lanes = _running_in_lanes(connection)
    taken: list[Claim] = []
    has_room = job.c.tenant.not_in(claimant.limits.full(running))
    query = _waiting(claimant, now=now).where(or_(job.c.cancel_requested, has_room))
    for row in connection.execute(query.with_for_update(skip_locked=True).limit(BATCH)).all():
        if len(taken) == slots:
            break
        is_full = row.lane is not None and lanes[row.lane] >= claimant.widths.get(row.name, 1)
        is_full = is_full or row.tenant in claimant.limits.full(running)
        if is_full and not row.cancel_requested:
            continue
        needed = Resources(row.cpu, row.gpu, row.memory_bytes)
        if needed.fits(free):
            taken.append(_assign(connection, row, claimant=claimant, now=now))
            running[row.tenant] += 1
            lanes[row.lane] += 1
        free = free.less(needed)
    return taken


def _waiting(claimant: Claimant, *, now: datetime) -> Select[Any]:
    largest = claimant.capacity.resources
    ahead = job.alias("ahead")
    in_lane = select(func.count()).where(ahead.c.lane == job.c.lane, ahead.c.state == "running")
    width = case(dict(claimant.widths), value=job.c.name, else_=1) if claimant.widths else 1
    return (
        select(job)
        .where(
            job.c.state == "queued",
            job.c.available_at <= now,
            job.c.name.in_(claimant.names),
            and_(
                job.c.cpu <= largest.cpu,
                job.c.gpu <= largest.gpu,
                job.c.memory_bytes <= largest.memory_bytes,
            ),
            or_(
                job.c.lane.is_(None),
                job.c.cancel_requested,
                in_lane.scalar_subquery() < width,
            ),
        )
        .order_by(job.c.cancel_requested.desc(), job.c.priority.desc(), job.c.number)
    )


def _running_in_lanes(connection: Connection) -> Counter[str | None]:
    query = select(job.c.lane, func.count()).where(job.c.state == "running").group_by(job.c.lane)
    return Counter({row[0]: row[1] for row in connection.execute(query)})


def _is_registered(connection: Connection, worker_id: str) -> bool:
    found = connection.scalar(select(job_worker.c.id).where(job_worker.c.id == worker_id))
    return found is not None


def _left(connection: Connection, claimant: Claimant) -> tuple[Resources, int]:
    running = connection.execute(
        select(
            func.count(),
            func.coalesce(func.sum(job.c.cpu), 0.0),
            func.coalesce(func.sum(job.c.gpu), 0),
            func.coalesce(func.sum(job.c.memory_bytes), 0),
        ).where(job.c.worker_id == claimant.worker_id, job.c.state == "running")
    ).one()
    taken = Resources(float(running[1]), int(running[2]), int(running[3]))
    capacity = claimant.capacity
    return capacity.resources.less(taken), capacity.slots - running[0]


def _assign(connection: Connection, row: Row[Any], *, claimant: Claimant, now: datetime) -> Claim:
    fence = connection.scalars(
        insert(job_attempt)
        .values(job_id=row.id, worker_id=claimant.worker_id, started_at=now)
        .returning(job_attempt.c.id)
    ).one()
    connection.execute(
        update(job)
        .where(job.c.id == row.id)
        .values(
            state="running",
            fence=fence,
            worker_id=claimant.worker_id,
            has_steps=row.has_steps or row.name not in claimant.forgetful,
            detached=row.detached or row.name in claimant.detached,
            started_at=row.started_at or now,
        )
    )
    return read_claim(row, fence=fence)


def read_claim(row: Row[Any], *, fence: int) -> Claim:
    """Return the claim of an attempt on the job of a row."""
    return Claim(
        job_id=row.id,
        name=row.name,
        tenant=row.tenant,
        arguments=row.arguments,
        resources=Resources(row.cpu, row.gpu, row.memory_bytes),
        fence=fence,
        workflow_id=f"{row.id}:{row.run}",
        has_steps=row.has_steps,
        failures=row.failures,
        crashes=row.crashes,
        cancel_requested=row.cancel_requested,
    )

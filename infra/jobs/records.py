"""What can be read about jobs: their state, their attempts, their log lines."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Row

from infra.jobs.definitions import Json, Resources

State = Literal["queued", "running", "succeeded", "failed", "cancelled"]
"""`failed` is the dead-letter list: nothing more happens until somebody requeues the job."""
FINISHED = ("succeeded", "failed", "cancelled")
Level = Literal["debug", "info", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Progress:
    fraction: float | None
    """Between 0 and 1; `None` while unknown."""
    message: str


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it stood when it was read."""

    id: str
    name: str
    tenant: str
    key: str | None
    priority: int
    lane: str | None
    resources: Resources
    arguments: dict[str, Json]
    state: State
    cancel_requested: bool
    progress: Progress
    result: Json
    error: str | None
    """Why the last attempt went wrong, also while the job waits to be tried again."""
    attempt: int | None
    """The fencing token in force; `None` unless running."""
    worker: str | None
    failures: int
    crashes: int
    available_at: datetime
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @property
    def is_finished(self) -> bool:
        return self.state in FINISHED


@dataclass(frozen=True, slots=True)
class PastAttempt:
    """One time a job was run, or is being run."""

    fence: int
    worker: str
    started_at: datetime
    finished_at: datetime | None
    outcome: Literal["succeeded", "failed", "cancelled", "released", "lost"] | None
    """`released`: its worker stopped in order; `lost`: its worker died; `None`: it runs."""
    error: str | None


@dataclass(frozen=True, slots=True)
class LogLine:
    sequence: int
    attempt: int | None
    at: datetime
    level: Level
    message: str


@dataclass(frozen=True, slots=True)
class Depth:
    """How much there is to do in a queue."""

    queued: int
    running: int
    failed: int
    """Given up."""
    oldest_seconds: float
    """Since the moment that the job which waits longest could have started."""


@dataclass(frozen=True, slots=True)
class WorkerRecord:
    """A worker that is alive, as far as the others know."""

    id: str
    process: str
    """Host, boot and process namespace, process number, and its start."""
    names: tuple[str, ...]
    """Of the jobs it has code for."""
    resources: Resources
    slots: int
    started_at: datetime
    seen_at: datetime


def read_job(row: Row[Any]) -> Job:
    return Job(
        id=row.id,
        name=row.name,
        tenant=row.tenant,
        key=row.key,
        priority=row.priority,
        lane=row.lane,
        resources=Resources(row.cpu, row.gpu, row.memory_bytes),
        arguments=row.arguments,
        state=row.state,
        cancel_requested=row.cancel_requested,
        progress=Progress(row.fraction, row.message),
        result=row.result,
        error=row.error,
        attempt=row.fence,
        worker=row.worker_id,
        failures=row.failures,
        crashes=row.crashes,
        available_at=row.available_at,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
    )

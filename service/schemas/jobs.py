"""Jobs over HTTP: what is started, how it fares, its log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StringConstraints

from infra.jobs.records import Job, LogLine
from service.schemas.shared import Input, unix

State = Literal["queued", "running", "succeeded", "failed", "cancelled"]
Level = Literal["debug", "info", "warning", "error"]
Word = Annotated[str, StringConstraints(min_length=1, max_length=128)]
MAX_PRIORITY = 1000


class StartJob(Input):
    job: Word
    arguments: dict[str, Any] = Field(default_factory=dict)
    key: Annotated[str, StringConstraints(min_length=1, max_length=255)] | None = None
    """Started again with the same key, it is the same job."""
    tenant: Word = "default"
    priority: int = Field(0, ge=-MAX_PRIORITY, le=MAX_PRIORITY)


class RetryJob(Input):
    from_scratch: bool = False


class JobOut(BaseModel):
    id: str
    object: Literal["job"] = "job"
    job: str
    """Its kind."""
    state: State
    progress: float | None
    """Between 0 and 1; null while unknown."""
    message: str
    arguments: dict[str, Any]
    result: Any
    error: str | None
    cancel_requested: bool
    tenant: str
    key: str | None
    priority: int
    failures: int
    crashes: int
    created_at: int
    available_at: int
    started_at: int | None
    finished_at: int | None

    @classmethod
    def of(cls, job: Job) -> JobOut:
        return cls(
            id=job.id,
            job=job.name,
            state=job.state,
            progress=job.progress.fraction,
            message=job.progress.message,
            arguments=job.arguments,
            result=job.result,
            error=job.error,
            cancel_requested=job.cancel_requested,
            tenant=job.tenant,
            key=job.key,
            priority=job.priority,
            failures=job.failures,
            crashes=job.crashes,
            created_at=unix(job.created_at),
            available_at=unix(job.available_at),
            started_at=unix(job.started_at) if job.started_at else None,
            finished_at=unix(job.finished_at) if job.finished_at else None,
        )


class JobList(BaseModel):
    object: Literal["list"] = "list"
    data: list[JobOut]
    first_id: str | None
    last_id: str | None
    has_more: bool

    @classmethod
    def of(cls, jobs: Sequence[Job], *, has_more: bool) -> JobList:
        data = [JobOut.of(job) for job in jobs]
        return cls(
            data=data,
            first_id=data[0].id if data else None,
            last_id=data[-1].id if data else None,
            has_more=has_more,
        )


class LogLineOut(BaseModel):
    sequence: int
    attempt: int | None
    at: int
    level: Level
    message: str

    @classmethod
    def of(cls, line: LogLine) -> LogLineOut:
        return cls(
            sequence=line.sequence,
            attempt=line.attempt,
            at=unix(line.at),
            level=line.level,
            message=line.message,
        )


class LogLineList(BaseModel):
    object: Literal["list"] = "list"
    data: list[LogLineOut]
    has_more: bool

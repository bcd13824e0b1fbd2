"""Jobs: start, list, follow, cancel and retry the work that survives a restart."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from starlette.exceptions import HTTPException

from infra.jobs.definitions import Options
from infra.jobs.records import Job, LogLine
from service import streaming
from service.bodies import StrictRoute
from service.dependencies import Operator, Parts
from service.schemas.jobs import (
    JobList,
    JobOut,
    LogLineList,
    LogLineOut,
    RetryJob,
    StartJob,
    State,
    Word,
)
from service.schemas.shared import MAX_LIST, OPENAI_ERRORS
from service.streaming import EventStream, Look, frame
from service.wiring import Components
from service.work import kinds

router = APIRouter(
    prefix="/v1/jobs",
    tags=["jobs"],
    route_class=StrictRoute,
    responses=OPENAI_ERRORS,
    dependencies=[Operator],
)
EVENT = {
    "type": "object",
    "description": "One server-sent event.",
    "properties": {
        "event": {"type": "string"},
        "id": {"type": "string"},
        "data": {"type": "string"},
    },
    "required": ["event", "data"],
}
STREAM: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": EVENT}}}
}
MAX_SEQUENCE = 2**63 - 1
MAX_LINES = 1000


@router.post("")
def start(body: StartJob, components: Parts) -> JobOut:
    """Queue a job, of those kinds that may be started from outside."""
    kind = components.jobs.registry.get(body.job)
    if not kind.behaviour.remote:
        raise HTTPException(
            403, f"Job {body.job!r} is not started over HTTP; use: ragstone jobs start {body.job}"
        )
    options = Options(key=body.key, tenant=body.tenant, priority=body.priority)
    return JobOut.of(components.jobs.start(body.job, body.arguments, options=options))


@router.get("")
def list_jobs(
    components: Parts,
    state: State | None = None,
    job: Word | None = None,
    tenant: Word | None = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIST)] = 20,
    after: str | None = None,
) -> JobList:
    """List jobs, the newest first; the state `failed` is the list of those that were given up."""
    found = components.jobs.list(
        state=state, name=job, tenant=tenant, limit=limit + 1, before=after
    )
    return JobList.of(found[:limit], has_more=len(found) > limit)


@router.get("/{job_id}")
def get(job_id: str, components: Parts) -> JobOut:
    """Return one job as it stands."""
    return JobOut.of(components.jobs.get(job_id))


@router.post("/{job_id}/cancel")
def cancel(job_id: str, components: Parts) -> JobOut:
    """End a job: at once if it waits, at its next step if it runs; a finished one stays."""
    return JobOut.of(kinds.cancel(components, job_id))


@router.post("/{job_id}/retry")
def retry(job_id: str, components: Parts, body: RetryJob | None = None) -> JobOut:
    """Give a failed or cancelled job another chance, after the last step that it finished."""
    from_scratch = body.from_scratch if body else False
    return JobOut.of(kinds.requeue(components, job_id, from_scratch=from_scratch))


@router.get("/{job_id}/logs")
def logs(
    job_id: str,
    components: Parts,
    after: Annotated[int, Query(ge=0, le=MAX_SEQUENCE)] = 0,
    limit: Annotated[int, Query(ge=1, le=MAX_LINES)] = MAX_LINES,
) -> LogLineList:
    """Return log lines in order, from behind the sequence `after` on."""
    lines = components.jobs.logs(job_id, after=after, limit=limit + 1)
    data = [LogLineOut.of(line) for line in lines[:limit]]
    return LogLineList(data=data, has_more=len(lines) > limit)


@router.get("/{job_id}/events", response_class=Response, responses=STREAM)
async def follow(
    job_id: str,
    request: Request,
    components: Parts,
    last_event_id: Annotated[int, Header(ge=0, le=MAX_SEQUENCE)] = 0,
) -> EventStream:
    """Follow a job by server-sent events until it is finished.

    `progress` holds the job whenever it changed, `log` one line of its log, `done` the finished
    job. An event's id is the last log line's sequence: sent back as `Last-Event-ID`, the lines
    until there are left out. Comments keep a quiet stream open.
    """
    following = _Following(components, job_id, last_event_id)
    is_stopping = request.app.state.stopping.is_set
    return await streaming.follow(following, is_stopping=is_stopping, failure="error")


class _Following:
    """Log lines of a job and, whenever it changed, the job."""

    def __init__(self, components: Components, job_id: str, seen: int) -> None:
        self._jobs = components.jobs
        self._id = job_id
        self._read = self._written = seen
        self._known: Job | None = None

    def look(self) -> Look[Job | LogLine]:
        job = self._jobs.get(self._id)  # before the lines: what it wrote last is among them
        lines = self._jobs.logs(self._id, after=self._read, limit=MAX_LINES)
        if lines:
            self._read = lines[-1].sequence
        if len(lines) == MAX_LINES:
            return Look(lines, has_more=True)
        changed = [] if job == self._known else [job]
        self._known = job
        return Look([*lines, *changed], is_over=job.is_finished)

    async def write(self, change: Job | LogLine) -> bytes:
        if isinstance(change, LogLine):
            self._written = change.sequence
            return frame(LogLineOut.of(change), event="log", id=self._written)
        event = "done" if change.is_finished else "progress"
        return frame(JobOut.of(change), event=event, id=self._written)

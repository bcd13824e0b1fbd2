"""OpenAI's fine-tuning jobs: made, listed, followed, paused, resumed, cancelled."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from infra.errors import InvalidConfiguration, InvalidRequest
from service.bodies import StrictRoute
from service.dependencies import Asking, Parts
from service.fine_tuning.ordering import Orders
from service.fine_tuning.records import Event, FineTuningJob, Metadata
from service.limits import in_thread
from service.routes.answers import STREAM
from service.schemas.fine_tuning import (
    CheckpointList,
    CheckpointOut,
    CreateFineTuningJob,
    EventList,
    EventOut,
    FineTuningJobList,
    FineTuningJobOut,
)
from service.schemas.shared import MAX_LIST, OPENAI_ERRORS, Deleted
from service.streaming import Look, follow, frame
from service.wiring import Components

router = APIRouter(
    prefix="/v1", tags=["fine-tuning"], route_class=StrictRoute, responses=OPENAI_ERRORS
)
JOBS = "/fine_tuning/jobs"
MAX_EVENTS = 1000
RECENTLY = timedelta(minutes=1)
"""After which the watch over tuned models has long seen a job that succeeded."""
Id = Annotated[str, Path(max_length=64)]
Cursor = Annotated[str | None, Query(max_length=64)]


async def _orders(components: Parts, caller: Asking) -> Orders:
    return Orders(components, caller)


Ordered = Annotated[Orders, Depends(_orders)]


@router.post(JOBS)
def create(body: CreateFineTuningJob, orders: Ordered) -> FineTuningJobOut:
    """Tune a model that the settings name, by a file that was uploaded for it."""
    return FineTuningJobOut.of(orders.create(body.as_order()))


@router.get(JOBS)
async def list_jobs(
    request: Request,
    orders: Ordered,
    components: Parts,
    limit: Annotated[int, Query(ge=1, le=MAX_LIST)] = 20,
    after: Cursor = None,
) -> FineTuningJobList:
    """List jobs, the newest first; `metadata[KEY]=VALUE` keeps those that have the pair."""
    wanted = _metadata(request)
    page = await in_thread(lambda: orders.list(limit=limit, after=after, metadata=wanted))
    await _serve(components, *page.items)
    return FineTuningJobList(
        data=[FineTuningJobOut.of(job) for job in page.items], has_more=page.has_more
    )


@router.get(JOBS + "/{job_id}")
async def get(job_id: Id, orders: Ordered, components: Parts) -> FineTuningJobOut:
    """Return one job as it stands; the model of one that has succeeded can be asked."""
    job = await in_thread(lambda: orders.get(job_id))
    await _serve(components, job)
    return FineTuningJobOut.of(job)


@router.post(JOBS + "/{job_id}/cancel")
def cancel(job_id: Id, orders: Ordered) -> FineTuningJobOut:
    """End a job; nothing comes out of it."""
    return FineTuningJobOut.of(orders.cancel(job_id))


@router.post(JOBS + "/{job_id}/pause")
def pause(job_id: Id, orders: Ordered) -> FineTuningJobOut:
    """Have a job write a checkpoint and stop, until it is resumed."""
    return FineTuningJobOut.of(orders.pause(job_id))


@router.post(JOBS + "/{job_id}/resume")
def resume(job_id: Id, orders: Ordered) -> FineTuningJobOut:
    """Go on with a paused job from its last checkpoint."""
    return FineTuningJobOut.of(orders.resume(job_id))


@router.get(JOBS + "/{job_id}/events", response_model=EventList, responses=STREAM)
async def list_events(
    job_id: Id,
    request: Request,
    orders: Ordered,
    components: Parts,
    limit: Annotated[int, Query(ge=1, le=MAX_EVENTS)] = 20,
    after: Cursor = None,
    stream: bool = False,
) -> EventList | Response:
    """List what happened to a job, the newest first.

    With `stream`, all events come in their order as server-sent events, and those that are yet to
    happen, until the job has ended; then `[DONE]`.
    """
    if stream:
        following = _Following(components, orders, job_id)
        return await follow(following, is_stopping=request.app.state.stopping.is_set)
    page = await in_thread(lambda: orders.jobs.events(job_id, limit=limit, after=after))
    return EventList(data=[EventOut.of(each) for each in page.items], has_more=page.has_more)


@router.get(JOBS + "/{job_id}/checkpoints")
def list_checkpoints(
    job_id: Id,
    orders: Ordered,
    limit: Annotated[int, Query(ge=1, le=MAX_LIST)] = 10,
    after: Cursor = None,
) -> CheckpointList:
    """List the checkpoints of a job that are kept, the newest first."""
    job = orders.get(job_id)
    page = orders.jobs.checkpoints(job_id, limit=limit, after=after)
    data = [CheckpointOut.of(each, job) for each in page.items]
    return CheckpointList(
        data=data,
        first_id=data[0].id if data else None,
        last_id=data[-1].id if data else None,
        has_more=page.has_more,
    )


@router.delete("/models/{model:path}")
async def delete_model(model: str, orders: Ordered, caller: Asking, components: Parts) -> Deleted:
    """Have a tuned model served no more, and remove its adapter from the store."""
    caller.require("admin")
    await in_thread(lambda: orders.delete_model(model))
    await components.tuned_models.refresh(components.routes)
    return Deleted(id=model, object="model")


async def _serve(components: Components, *jobs: FineTuningJob) -> None:
    """Have the models of jobs be known here before a client is told their names."""
    known, recent = components.routes.current.routes, datetime.now(UTC) - RECENTLY
    new = (job for job in jobs if job.status == "succeeded" and job.model_name not in known)
    if any(job.finished_at is not None and job.finished_at > recent for job in new):
        with suppress(InvalidConfiguration):  # the watch over tuned models says why
            await components.tuned_models.refresh(components.routes)


def _metadata(request: Request) -> Metadata:
    given = request.query_params
    if given.get("metadata") in {"", "null"}:
        return "null"
    found: dict[str, str] = {}
    for name, value in given.items():
        if name.startswith("metadata"):
            key = name.removeprefix("metadata")
            if not (key.startswith("[") and key.endswith("]")):
                raise InvalidRequest(f"{name!r}: write metadata[KEY]=VALUE", parameter="metadata")
            found[key[1:-1]] = value
    return found or None


class _Following:
    """Events of a job, then the job once it has ended."""

    def __init__(self, components: Components, orders: Orders, job_id: str) -> None:
        self._components = components
        self._orders = orders
        self._id = job_id
        self._after: str | None = None

    def look(self) -> Look[Event | FineTuningJob]:
        job = self._orders.get(self._id)  # before what it said last
        page = self._orders.jobs.events(
            self._id, limit=MAX_EVENTS, after=self._after, newest_first=False
        )
        if page.items:
            self._after = page.items[-1].id
        is_over = job.is_finished and not page.has_more
        events: list[Event | FineTuningJob] = [*page.items, *([job] if is_over else [])]
        return Look(events, has_more=page.has_more, is_over=is_over)

    async def write(self, change: Event | FineTuningJob) -> bytes:
        if isinstance(change, Event):
            return frame(EventOut.of(change))
        await _serve(self._components, change)
        return b"data: [DONE]\n\n"

"""OpenAI's fine-tuning jobs: made, listed, followed, paused, resumed, cancelled."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from infra.errors import InvalidConfiguration, InvalidRequest, RagstoneError
from service.bodies import StrictRoute
from service.dependencies import Asking, Parts
from service.errors import as_object, describe
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
from service.streaming import EventStream, begun, frame
from service.wiring import Components

router = APIRouter(
    prefix="/v1", tags=["fine-tuning"], route_class=StrictRoute, responses=OPENAI_ERRORS
)
JOBS = "/fine_tuning/jobs"
MAX_EVENTS = 1000
POLL_SECONDS = 0.25
HEARTBEAT_SECONDS = 15.0
"""Between comments on a quiet stream, so that what stands in between does not close it."""
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
        is_stopping = request.app.state.stopping.is_set
        changes = _changes(orders, job_id, is_stopping=is_stopping)
        return EventStream(_frames(await begun(changes), components))
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
    known = components.routes.current.routes
    if any(job.status == "succeeded" and job.model_name not in known for job in jobs):
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


async def _frames(
    changes: AsyncGenerator[Event | FineTuningJob | None, None], components: Components
) -> AsyncGenerator[bytes, None]:
    async with aclosing(changes):
        try:
            async for change in changes:
                if change is None:
                    yield b": still there\n\n"
                elif isinstance(change, Event):
                    yield frame(EventOut.of(change))
                else:
                    await _serve(components, change)
                    yield b"data: [DONE]\n\n"
        except RagstoneError as error:
            yield frame(as_object(describe(error)))


async def _changes(
    orders: Orders, job_id: str, *, is_stopping: Callable[[], Any]
) -> AsyncGenerator[Event | FineTuningJob | None, None]:
    """Yield events, then the job once it has ended; `None` after a time without any."""
    after: str | None = None
    spoken_at = time.monotonic()
    while True:
        job = await in_thread(lambda: orders.get(job_id))  # before what it said last
        look = partial(orders.jobs.events, job_id, limit=MAX_EVENTS, newest_first=False)
        page = await in_thread(partial(look, after=after))
        for each in page.items:
            after, spoken_at = each.id, time.monotonic()
            yield each
        if page.has_more:
            continue
        if job.is_finished:
            yield job
        if job.is_finished or is_stopping():
            return
        if time.monotonic() - spoken_at >= HEARTBEAT_SECONDS:
            spoken_at = time.monotonic()
            yield None
        await asyncio.sleep(POLL_SECONDS)

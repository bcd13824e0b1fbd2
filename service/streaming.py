"""Server-sent events: the first is awaited before the status is sent, closing stops the work."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import orjson
from pydantic import BaseModel
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from infra.errors import RagstoneError
from service.errors import as_object, describe
from service.limits import in_thread

Event = TypeVar("Event")
NOT_STORED = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
POLL_SECONDS = 0.25
"""Between two looks at what is followed."""
HEARTBEAT_SECONDS = 15.0
"""Between comments on a quiet stream, so that what stands in between does not close it."""


class ClosingResponse(StreamingResponse):
    """Streams what a generator yields and closes it, also when the client leaves early."""

    def __init__(self, pieces: AsyncGenerator[bytes, None], **options: Any) -> None:
        super().__init__(pieces, **options)
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._pieces):
            await super().__call__(scope, receive, send)


class EventStream(ClosingResponse):
    """Streams frames of server-sent events."""

    media_type = "text/event-stream"

    def __init__(
        self, events: AsyncGenerator[bytes, None], *, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(events, headers={**NOT_STORED, **(headers or {})})


async def begun(events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
    """Return the same events once the first has come: what fails before it still has a status."""
    try:
        first = await anext(events)
    except BaseException:
        await events.aclose()
        raise
    return _with_first(first, events)


@dataclass(frozen=True, slots=True)
class Look(Generic[Event]):
    """What is new of something that goes on."""

    events: Sequence[Event]
    has_more: bool = False
    """Whether there was more than one look takes."""
    is_over: bool = False


class Following(Protocol[Event]):
    """Looks at something that goes on, and writes what it found to the wire."""

    def look(self) -> Look[Event]:
        """Return what is new since the last look; runs in a thread."""

    async def write(self, event: Event) -> bytes: ...


async def follow(
    following: Following[Event], *, is_stopping: Callable[[], bool], failure: str | None = None
) -> EventStream:
    """Stream what one look after another finds, until it is over or the server stops.

    An error of the first look is raised; that of a later one is the last event, by the name
    `failure`. Comments keep a quiet stream open.
    """
    looks = await begun(_looks(following.look, is_stopping=is_stopping))
    return EventStream(_framed(looks, following.write, failure=failure))


def frame(
    data: BaseModel | dict[str, object], *, event: str | None = None, id: int | None = None
) -> bytes:
    """Return one event on the wire; a client that comes back says which `id` it saw last."""
    content = data.model_dump(mode="json") if isinstance(data, BaseModel) else data
    name = f"event: {event}\n".encode() if event else b""
    number = f"id: {id}\n".encode() if id is not None else b""
    return name + number + b"data: " + orjson.dumps(content) + b"\n\n"


async def _with_first(
    first: Event, rest: AsyncGenerator[Event, None]
) -> AsyncGenerator[Event, None]:
    async with aclosing(rest):
        yield first
        async for event in _each(rest):
            yield event


async def _each(events: AsyncIterator[Event]) -> AsyncIterator[Event]:
    async for event in events:
        yield event


async def _looks(
    look: Callable[[], Look[Event]], *, is_stopping: Callable[[], bool]
) -> AsyncGenerator[Sequence[Event] | None, None]:
    """Yield what looks found; `None` after a time without anything."""
    spoken_at = time.monotonic()
    while True:
        found = await in_thread(look)
        if found.events:
            spoken_at = time.monotonic()
            yield found.events
        if found.has_more:
            continue
        if found.is_over or is_stopping():
            return
        if time.monotonic() - spoken_at >= HEARTBEAT_SECONDS:
            spoken_at = time.monotonic()
            yield None
        await asyncio.sleep(POLL_SECONDS)


async def _framed(
    looks: AsyncGenerator[Sequence[Event] | None, None],
    write: Callable[[Event], Awaitable[bytes]],
    *,
    failure: str | None,
) -> AsyncGenerator[bytes, None]:
    async with aclosing(looks):
        try:
            async for events in looks:
                for event in events or ():
                    yield await write(event)
                if events is None:
                    yield b": still there\n\n"
        except RagstoneError as error:
            yield frame(as_object(describe(error)), event=failure)

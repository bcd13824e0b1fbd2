"""Server-sent events: the first is awaited before the status is sent, closing stops the work."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

Event = TypeVar("Event")
NOT_STORED = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


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

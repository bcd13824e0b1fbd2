"""The way in for OpenAI's requests to models: raw ASGI before the router, so that it is short."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import orjson
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from infra.errors import RagstoneError
from service.bodies import header, read_whole, refuse_nul
from service.callers import Caller
from service.errors import describe, respond
from service.gateway import checking
from service.gateway.calls import TARGET_HEADER, Call
from service.gateway.opening import IDEMPOTENCY_HEADER, PASSED_ON, Origin, open_call
from service.gateway.outgoing import TIMEOUT_HEADER
from service.gateway.reloading import Tables
from service.gateway.replies import GatewayReply

logger = logging.getLogger(__name__)

OTHER_MODELS = ("rag/", "local/")
"""What begins so is no route of the gateway but a collection, or a model of this process."""
SLOW_READER_SECONDS = 5.0
"""Past the deadline, for the caller to take what is already there."""
WATCH_LEAVING = "watch_leaving"
"""In the state of a request, from our own server: takes what is called when the caller leaves, or
None. A task that listens for that costs more; other servers offer no more."""
_STREAM = ((b"cache-control", b"no-store"), (b"x-accel-buffering", b"no"))


class Runs(Protocol):
    """A relay, or what stands around one: a cache, say."""

    def __call__(self, call: Call) -> Awaitable[GatewayReply]: ...


@dataclass(frozen=True, slots=True)
class Operation:
    """Stands where the router would have put its route; for metrics and the log."""

    path: str


_OPERATIONS = {path: Operation(path) for path in checking.KINDS}


class Door:
    """Answers requests to the gateway's models, and passes every other one on as it came."""

    def __init__(self, app: ASGIApp, *, tables: Callable[[], Tables], run: Runs) -> None:
        self._app = app
        self._tables = tables
        self._run = run

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (
            scope["type"] != "http"
            or scope["path"] not in checking.KINDS
            or scope["method"] != "POST"
        ):
            await self._app(scope, receive, send)
            return
        path: str = scope["path"]
        try:
            raw = await read_whole(receive)
            if raw is None:  # the caller left midway
                return
            body = _parse(raw, header(scope, b"content-type"))
            if body is None or not _is_model(body):
                await self._app(scope, _replay(raw, receive), send)
                return
            scope["route"] = _OPERATIONS[path]
            call = self._call(scope, path, body)
        except (RagstoneError, HTTPException) as error:
            scope["route"] = _OPERATIONS[path]
            await respond(path, describe(error))(scope, receive, send)
            return
        await self._answer(call, scope, receive, send)

    def _call(self, scope: Scope, path: str, body: dict[str, Any]) -> Call:
        caller: Caller = scope["state"]["caller"]
        given = _given(scope)
        state = scope["state"]
        origin = Origin(state["request_id"], given, parent=state.get("traceparent"))
        call = open_call(self._tables().current, path, body, caller=caller, origin=origin)
        call.target = given.get(TARGET_HEADER)
        if call.target is not None:
            caller.require("admin")
            caller.require_operator()
        return call

    async def _answer(self, call: Call, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, and give up as soon as the caller does."""
        work = asyncio.current_task()
        has_left = False

        def leave() -> None:
            nonlocal has_left
            if work is not None:
                has_left = True
                work.cancel()

        stop = _watch(scope, receive, leave)
        try:
            await self._relay(call, scope, receive, send)
        except asyncio.CancelledError:
            if not has_left or work is None or work.uncancel() > 0:
                raise
            scope["state"]["has_left"] = True
        finally:
            stop()

    async def _relay(self, call: Call, scope: Scope, receive: Receive, send: Send) -> None:
        left = call.deadline - time.monotonic() + SLOW_READER_SECONDS
        try:
            reply = await self._run(call)
        except (RagstoneError, HTTPException) as error:
            await respond(call.path, describe(error))(scope, receive, send)
            return
        try:
            if reply.is_whole:  # which is taken at once
                await _send_whole(reply, send)
            else:
                async with asyncio.timeout(left):
                    await _send_stream(reply, send)
        except TimeoutError:  # an answer without its end: the server closes the connection
            logger.warning("the caller did not take the answer in time")
        finally:
            await reply.pieces.aclose()


async def _send_whole(reply: GatewayReply, send: Send) -> None:
    body = b"".join([piece async for piece in reply.pieces])
    headers = _encoded(reply)
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _send_stream(reply: GatewayReply, send: Send) -> None:
    headers = [*_encoded(reply), *_STREAM]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    async for piece in reply.pieces:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def _encoded(reply: GatewayReply) -> list[tuple[bytes, bytes]]:
    named = reply.headers.items()
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in named]


def _parse(raw: bytes, media_type: bytes) -> dict[str, Any] | None:
    """Return the object in the body; None where the router is to say what is wrong with it."""
    if media_type != b"application/json":
        kind = media_type.partition(b";")[0].strip().lower()
        if kind != b"application/json" and not kind.endswith(b"+json"):
            return None
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(body, dict):
        return None
    if raw.count(b"[") + raw.count(b"{") > checking.MAX_DEPTH:
        checking.check_depth(body)
    if b"\\u0000" in raw:
        refuse_nul(body)
    return body


def _is_model(body: dict[str, Any]) -> bool:
    model = body.get("model")
    return isinstance(model, str) and model != "" and not model.startswith(OTHER_MODELS)


def _replay(raw: bytes, receive: Receive) -> Receive:
    """Give the body that was read once more, then whatever comes."""
    is_given = False

    async def replay() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": raw, "more_body": False}

    return replay


def _watch(scope: Scope, receive: Receive, leave: Callable[[], None]) -> Callable[[], object]:
    """Have `leave` called when the caller does; returns what ends that."""
    watch = scope["state"].get(WATCH_LEAVING)
    if watch is not None:
        watch(leave)
        return partial(watch, None)

    is_over = False

    def tell(listener: asyncio.Task[None]) -> None:
        if not listener.cancelled() and not is_over:
            leave()

    def stop() -> None:
        nonlocal is_over
        is_over = True
        listener.cancel()

    listener = asyncio.create_task(_until_left(receive))
    listener.add_done_callback(tell)
    return stop


async def _until_left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


_WANTED = {
    name.encode(): name
    for name in (TARGET_HEADER, TIMEOUT_HEADER, IDEMPOTENCY_HEADER, *sorted(PASSED_ON))
}


def _given(scope: Scope) -> dict[str, str]:
    return {
        _WANTED[name]: value.decode("latin-1")
        for name, value in scope["headers"]
        if name in _WANTED
    }

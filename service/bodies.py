"""Request bodies: bounded, in good time, of the right media type, strict JSON in plain Unicode."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import orjson
from fastapi import Request, Response, params
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from infra.errors import InvalidRequest, TooLarge
from infra.settings import Server
from service.errors import describe, respond

UPLOADS = "/v1/files"
FORM_OVERHEAD_BYTES = 64 * 1024
"""Of a multipart body around the file itself."""
IS_WHOLE = "is_whole"
"""In the state of a request, from our own server: whether its body has come whole."""
SILENCE_SECONDS = 30.0
"""Longest wait for the next piece of a body."""
BYTES_PER_SECOND = 1024
"""What a body brings at least for each second of waiting beyond `SILENCE_SECONDS` in all: one that
trickles would hold its connection for days."""


class BodyLimits:
    """Refuses what is too large or too slow while it arrives, whatever its headers promised."""

    def __init__(self, app: ASGIApp, *, server: Server) -> None:
        self._app = app
        self._server = server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._limit(scope["path"])
        try:
            _check_address(scope)
            _check_length(header(scope, b"content-length"), limit)
        except InvalidRequest as error:
            await respond(scope["path"], describe(error))(scope, receive, send)
            return
        is_whole = scope.get("state", {}).get(IS_WHOLE)
        await self._app(scope, self._bounded(receive, limit, is_whole or (lambda: False)), send)

    def _limit(self, path: str) -> int:
        if path == UPLOADS:
            return self._server.max_upload_bytes + FORM_OVERHEAD_BYTES
        return self._server.max_body_bytes

    def _bounded(self, receive: Receive, limit: int, is_whole: Callable[[], bool]) -> Receive:
        received, waited, is_complete = 0, 0.0, False

        async def in_time() -> Message:
            nonlocal waited
            clock = asyncio.get_running_loop().time
            left = SILENCE_SECONDS + received / BYTES_PER_SECOND - waited
            start = clock()
            try:
                async with asyncio.timeout(min(SILENCE_SECONDS, left)):
                    return await receive()
            except TimeoutError as error:
                words = f"The body does not come: {received:,} bytes so far, send it faster"
                raise HTTPException(408, words, {"Connection": "close"}) from error
            finally:
                waited += clock() - start

        async def bounded() -> Message:
            nonlocal received, is_complete
            if is_complete:  # what is awaited now is the client's leaving
                return await receive()
            message = await (receive() if is_whole() else in_time())
            received += len(message.get("body", b""))
            if received > limit:
                raise _too_large(limit)
            is_complete = not message.get("more_body", False)
            return message

        return bounded


class StrictRoute(APIRoute):
    """A route whose body is what its media type says; see `_StrictRequest`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        if self.body_field is None:
            return handle
        expects_form = isinstance(self.body_field.field_info, params.Form)

        async def handle_strictly(request: Request) -> Response:
            media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            if expects_form:
                _require(media_type == "multipart/form-data", "multipart/form-data", media_type)
                return await handle(request)
            strict = _StrictRequest(request.scope, request.receive)
            if await strict.body():
                is_json = media_type == "application/json" or media_type.endswith("+json")
                _require(is_json, "application/json", media_type)
            return await handle(strict)

        return handle_strictly


class BytesRoute(APIRoute):
    """A route whose function reads the body's bytes itself: nothing stands before it, for speed.

    The function takes the request and what its path names.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        function = self.endpoint

        async def handle(request: Request) -> Response:
            answer: Response = await function(request, **request.path_params)
            return answer

        return handle


class _StrictRequest(Request):
    """JSON without NaN, half characters and the NUL that no database text can hold."""

    async def json(self) -> Any:
        body = await self.body()
        value = orjson.loads(body)
        if b"\\u0000" in body:
            refuse_nul(value)
        return value


async def read_whole(receive: Receive) -> bytes | None:
    """Return a body; None if the caller left before it was complete."""
    message = await receive()
    if not message.get("more_body"):
        return message.get("body", b"") if message["type"] == "http.request" else None
    pieces = []
    while message["type"] == "http.request":
        pieces.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(pieces)
        message = await receive()
    return None


def refuse_nul(value: Any) -> None:
    """Refuse JSON with a NUL in it, at any depth.

    Raises:
        InvalidRequest: says so.
    """
    if isinstance(value, str):
        if "\0" in value:
            raise InvalidRequest("The body holds a NUL character (\\u0000); leave it out")
    elif isinstance(value, dict):
        for key, part in value.items():
            refuse_nul(key)
            refuse_nul(part)
    elif isinstance(value, list):
        for part in value:
            refuse_nul(part)


def _require(holds: bool, wanted: str, given: str) -> None:
    if not holds:
        raise HTTPException(415, f"Content-Type is {given[:100]!r}; send {wanted}")


def _check_address(scope: Scope) -> None:
    if "\0" in scope["path"] or b"%00" in scope["query_string"]:
        raise InvalidRequest("The address holds a NUL character (%00); leave it out")


def header(scope: Scope, wanted: bytes) -> bytes:
    """Return a header by its name in lower case, or nothing."""
    for name, value in scope["headers"]:
        if name == wanted:
            found: bytes = value
            return found
    return b""


def _check_length(declared: bytes, limit: int) -> None:
    if declared.isdigit() and int(declared[:20]) > limit:
        raise _too_large(limit)


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The body exceeds {limit:,} bytes; send less, or raise the server's limit")

"""Bodies come in good time: neither silence nor a trickle holds a connection for long."""

from __future__ import annotations

import asyncio

import pytest
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope, Send

from infra.settings import Server
from service.bodies import BodyLimits, read_whole

SCOPE: Scope = {"type": "http", "path": "/v1/answers", "query_string": b"", "headers": []}


def read(
    *, pieces: int, piece: bytes, pause_seconds: float, silence_seconds: float = 0.2
) -> bytes | None:
    """Read a body that comes piece by piece, through the limits."""
    body: list[bytes | None] = []

    async def receive() -> Message:
        nonlocal pieces
        await asyncio.sleep(pause_seconds)
        pieces -= 1
        return {"type": "http.request", "body": piece, "more_body": pieces > 0}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        body.append(await read_whole(receive))

    async def send(message: Message) -> None:
        raise AssertionError(message)

    limits = BodyLimits(app, server=Server(), silence_seconds=silence_seconds)
    asyncio.run(limits(SCOPE, receive, send))
    return body[0]


def test_a_body_that_comes_slowly_and_steadily_is_read() -> None:
    piece = b"a" * 4096  # which is worth four seconds
    told = read(pieces=8, piece=piece, pause_seconds=0.14, silence_seconds=1.0)
    assert told == piece * 8, "all waits together are longer than one may be"


def test_silence_in_the_middle_of_a_body_ends_the_request() -> None:
    with pytest.raises(HTTPException, match="0 bytes so far") as refused:
        read(pieces=2, piece=b"a", pause_seconds=60)
    assert refused.value.status_code == 408


def test_a_body_that_trickles_ends_the_request() -> None:
    with pytest.raises(HTTPException, match="send it faster") as refused:
        read(pieces=10_000, piece=b"a", pause_seconds=0.03)
    assert refused.value.status_code == 408
    assert (refused.value.headers or {})["Connection"] == "close"

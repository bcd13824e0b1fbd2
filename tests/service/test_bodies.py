"""Bodies come in good time: neither silence nor a trickle holds a connection for long."""

from __future__ import annotations

import asyncio

import pytest
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope, Send

from infra.settings import Server
from relayed import Leaping, leap, run
from service.bodies import SILENCE_SECONDS, BodyLimits, read_whole

SCOPE: Scope = {"type": "http", "path": "/v1/answers", "query_string": b"", "headers": []}


def read(*pieces: tuple[float, bytes]) -> bytes | None:
    """Read a body that comes piece by piece, each after a pause in seconds, through the limits."""
    body: list[bytes | None] = []
    left = list(pieces)

    async def receive() -> Message:
        pause_seconds, piece = left.pop(0)
        leap(pause_seconds)
        for _ in range(2):  # turns of the loop: what has waited too long by now ends in the first
            await asyncio.sleep(0)
        return {"type": "http.request", "body": piece, "more_body": bool(left)}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        body.append(await read_whole(receive))

    async def send(message: Message) -> None:
        raise AssertionError(message)

    run(BodyLimits(app, server=Server())(SCOPE, receive, send), on=Leaping)
    return body[0]


def test_a_body_that_comes_slowly_and_steadily_is_read() -> None:
    piece = b"a" * 4096  # which is worth four seconds
    told = read(*[(7.0, piece)] * 8)
    assert told == piece * 8, "all waits together are longer than one may be"


def test_silence_in_the_middle_of_a_body_ends_the_request() -> None:
    with pytest.raises(HTTPException, match="1 bytes so far") as refused:
        read((1.0, b"a"), (SILENCE_SECONDS + 1, b"a"))
    assert refused.value.status_code == 408


def test_a_body_that_trickles_ends_the_request() -> None:
    with pytest.raises(HTTPException, match="send it faster") as refused:
        read(*[(0.5, b"a")] * 100)
    assert refused.value.status_code == 408
    assert (refused.value.headers or {})["Connection"] == "close"

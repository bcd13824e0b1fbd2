"""Laws that every model server in the folder obeys, beside a server that answers as told."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest

import model_server
from infra.errors import EngineFailed, EngineTimedOut, InvalidConfiguration
from infra.plugins import available
from model_server import Behaviour, Misbehaving
from relayed import run, until
from service.engines import ModelServer, Reply, ServerContext, open_server

NAMES = [
    name
    for name in available("service.engines")
    if hasattr(importlib.import_module(f"service.engines.{name}"), "build_server")
]
BEHIND_A_URL = ["openai_http"]
"""Those that ask another process; one that runs the model itself has tests of its own."""
PATH = "/v1/chat/completions"
BODY = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
def backend() -> Iterator[Misbehaving]:
    with model_server.serving() as server:
        yield server


@asynccontextmanager
async def opened(name: str, backend: Misbehaving, **more: Any) -> AsyncIterator[ModelServer]:
    server = open_server(name, ServerContext(backend.url, **{"silence_seconds": 0.3, **more}))
    try:
        yield server
    finally:
        await server.close()


async def send(server: ModelServer, *, seconds: float = 10, **more: Any) -> Reply:
    body = orjson.dumps({**BODY, **more})
    return await server.send(PATH, body, headers={"x-one": "1"}, timeout_seconds=seconds)


async def read(reply: Reply) -> bytes:
    return b"".join([piece async for piece in reply.pieces()])


def test_the_folder_holds_the_ones_we_know() -> None:
    assert set(BEHIND_A_URL) <= set(NAMES)


@pytest.mark.parametrize("name", BEHIND_A_URL)
def test_the_pieces_joined_are_the_body(name: str, backend: Misbehaving) -> None:
    async def ask() -> None:
        async with opened(name, backend, api_key="secret") as server:
            assert server.address == backend.url
            for _ in range(3):
                reply = await send(server)
                assert reply.status == 200
                assert reply.headers["content-type"] == "application/json"
                assert orjson.loads(await read(reply)) == model_server.completion("tiny")
            body = await read(await send(server, stream=True))
            assert body.count(b"data: ") == model_server.TOKENS + 1

    run(ask())
    headers = backend.asked[0].headers
    assert headers["authorization"] == "bearer secret"
    assert headers["content-type"] == "application/json"
    assert headers["x-one"] == "1"
    assert backend.cut_off == 0


@pytest.mark.parametrize("name", BEHIND_A_URL)
def test_an_error_is_a_reply_as_well(name: str, backend: Misbehaving) -> None:
    backend.behaviour = model_server.failing(418, {"error": "teapot"})

    async def ask() -> None:
        async with opened(name, backend) as server:
            reply = await send(server)
            assert reply.status == 418
            assert orjson.loads(await read(reply)) == {"error": "teapot"}

    run(ask())


async def close_it(server: ModelServer, backend: Misbehaving) -> None:
    reply = await send(server, stream=True)
    await anext(aiter(reply.pieces()))
    await reply.close()
    await reply.close()


async def close_before_reading(server: ModelServer, backend: Misbehaving) -> None:
    await (await send(server, stream=True)).close()


async def cancel_the_sending(server: ModelServer, backend: Misbehaving) -> None:
    backend.behaviour = model_server.hang
    task = asyncio.create_task(send(server, stream=True))
    await until(lambda: backend.running == 1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def cancel_the_reading(server: ModelServer, backend: Misbehaving) -> None:
    reply = await send(server, stream=True)
    task = asyncio.create_task(read(reply))
    await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


Leave = Callable[[ModelServer, Misbehaving], Any]


@pytest.mark.parametrize("name", BEHIND_A_URL)
@pytest.mark.parametrize(
    "leave", [close_it, close_before_reading, cancel_the_sending, cancel_the_reading]
)
def test_leaving_stops_the_work(name: str, backend: Misbehaving, leave: Leave) -> None:
    backend.behaviour = model_server.hang_midway

    async def ask() -> None:
        async with opened(name, backend, silence_seconds=30) as server:
            await leave(server, backend)
            await until(lambda: backend.running == 0 and backend.cut_off == 1)

    run(ask())


@pytest.mark.parametrize("name", BEHIND_A_URL)
@pytest.mark.parametrize(
    ("behaviour", "error"),
    [
        (model_server.hang, EngineTimedOut),
        (model_server.hang_midway, EngineTimedOut),
        (model_server.die, EngineFailed),
        (model_server.garbage, EngineFailed),
        (model_server.half_a_stream, EngineFailed),
        (model_server.huge_headers, EngineFailed),
    ],
)
def test_failure_is_engine_failed(
    name: str, backend: Misbehaving, behaviour: Behaviour, error: type[EngineFailed]
) -> None:
    backend.behaviour = behaviour

    async def ask() -> None:
        async with opened(name, backend) as server:
            with pytest.raises(error, match="127"):
                await read(await send(server, stream=True, seconds=0.5))

    run(ask())


@pytest.mark.parametrize("name", BEHIND_A_URL)
def test_a_probe_tells_whether_it_is_up(name: str, backend: Misbehaving) -> None:
    async def ask() -> None:
        async with opened(name, backend) as server:
            assert await server.probe()
            backend.is_healthy = False
            assert not await server.probe()
            await asyncio.to_thread(model_server.stop, backend)
            assert not await server.probe()
            with pytest.raises(EngineFailed):
                await send(server)

    run(ask())


@pytest.mark.parametrize("name", NAMES)
def test_unknown_option_is_refused_by_name(name: str) -> None:
    with pytest.raises(InvalidConfiguration, match="speed"):
        open_server(name, ServerContext("http://127.0.0.1:1", options={"speed": 1}))


@pytest.mark.parametrize("name", BEHIND_A_URL)
def test_an_address_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(InvalidConfiguration, match="ftp://x"):
        open_server(name, ServerContext("ftp://x"))

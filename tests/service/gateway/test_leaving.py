"""A caller that leaves stops the server's work, in whatever phase it is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

import model_server
from model_server import Behaviour, Misbehaving
from relayed import Opened, answer, call, gateway, opened, run, until

Serve = Callable[..., Misbehaving]
SECONDS = 0.2
"""Within which the server is to be idle."""


async def leave(gate: Opened, task: asyncio.Task[object]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert gate.outcomes[-1].status == 499


@pytest.mark.parametrize(
    ("behaviour", "stream"),
    [
        (model_server.hang, True),  # before the head
        (model_server.hang_after_head, True),  # before the first token
        (model_server.hang_midway, True),  # between tokens
        (model_server.hang, False),
        (model_server.paced(1.0), False),
    ],
)
def test_leaving_while_the_server_works_stops_it(
    serve: Serve, behaviour: Behaviour, stream: bool
) -> None:
    server = serve(behaviour)

    async def ask() -> None:
        async with opened(gateway(server, first_byte_seconds=30, silence_seconds=30)) as gate:
            task = asyncio.create_task(answer(gate.relay, call(stream=stream)))
            await until(lambda: server.running == 1)
            await asyncio.sleep(0.05)
            await leave(gate, task)
            assert await until(lambda: server.running == 0) < SECONDS
            assert server.cut_off == 1
            assert gate.is_idle
            assert gate.breakers == ["closed"]

    run(ask())


def test_leaving_the_queue_asks_the_server_nothing(serve: Serve) -> None:
    server = serve(model_server.paced(0.05))

    async def ask() -> None:
        async with opened(gateway(server, max_running=1)) as gate:
            first = asyncio.create_task(answer(gate.relay, call(stream=True)))
            await until(lambda: server.running == 1)
            second = asyncio.create_task(answer(gate.relay, call(stream=True)))
            upstream = gate.tables.current.upstreams["u"]
            await until(lambda: upstream.waiting == 1)
            await leave(gate, second)
            assert upstream.waiting == 0
            await first
            assert gate.is_idle

    run(ask())
    assert len(server.asked) == 1


def test_leaving_at_the_moment_the_place_is_given_gives_it_back(serve: Serve) -> None:
    server = serve()

    async def ask() -> None:
        async with opened(gateway(server, max_running=1)) as gate:
            upstream = gate.tables.current.upstreams["u"]
            replica = upstream.take(0)
            assert replica is not None
            waiting = asyncio.create_task(upstream.acquire(0, deadline=1e12))
            await until(lambda: upstream.waiting == 1)
            upstream.release(replica)  # gives the place to the one who waits
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert gate.is_idle

    run(ask())


def test_closing_a_stream_that_nobody_read_gives_the_place_back(serve: Serve) -> None:
    server = serve(model_server.hang_midway)

    async def ask() -> None:
        async with opened(gateway(server)) as gate:
            reply = await gate.relay.run(call(stream=True))
            assert not gate.is_idle
            await reply.pieces.aclose()
            assert gate.is_idle
            assert [outcome.status for outcome in gate.outcomes] == [499]
            await until(lambda: server.running == 0)
            with pytest.raises(StopAsyncIteration):
                [await anext(reply.pieces) for _ in range(2)]

    run(ask())


def test_what_was_sent_before_leaving_is_charged_about(serve: Serve) -> None:
    server = serve(model_server.paced(0.02, tokens=100))

    async def ask() -> None:
        async with opened(gateway(server)) as gate:
            reply = await gate.relay.run(call(stream=True))
            for _ in range(5):
                await anext(reply.pieces)
            await reply.pieces.aclose()
            assert 5 <= gate.outcomes[0].usage.completion_tokens <= 10

    run(ask())

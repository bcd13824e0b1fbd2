"""Streams that a server breaks midway: told to the caller, to the breaker and to the record."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import orjson
import pytest

import model_server
from infra.errors import EngineFailed
from model_server import Behaviour, Misbehaving
from relayed import HUNG, QUICK, answer, call, fail_thrice, gateway, opened, run, until

Serve = Callable[..., Misbehaving]

MIDWAY: dict[str, tuple[Behaviour, str, int]] = {
    "hung": (model_server.hang_midway, "engine_timeout", 504),
    "broken": (model_server.half_a_stream, "engine_failed", 502),
    "ended early": (model_server.early_end, "engine_failed", 502),
    "said so": (model_server.fail_midway, "500", 502),
}


def patience(name: str) -> dict[str, float]:
    return HUNG if name == "hung" else QUICK


@pytest.mark.parametrize("name", MIDWAY)
def test_a_stream_that_breaks_midway_ends_with_an_error_event(serve: Serve, name: str) -> None:
    behaviour, code, status = MIDWAY[name]
    bad = serve(behaviour)

    async def ask() -> None:
        async with opened(gateway(bad, **patience(name))) as gate:
            body = await answer(gate.relay, call(stream=True))
            events = [event.removeprefix(b"data: ") for event in body.strip().split(b"\n\n")]
            errors = [event for event in events if b'"error"' in event]
            assert [str(orjson.loads(error)["error"]["code"]) for error in errors] == [code]
            assert (b"[DONE]" in body) == (name == "said so")  # what the server sent is passed on
            (outcome,) = gate.outcomes
            assert (outcome.status, outcome.error) == (status, code)
            assert outcome.usage.completion_tokens >= 1  # what was sent is charged
            assert gate.is_idle

    run(ask())


@pytest.mark.parametrize("name", MIDWAY)
def test_a_replica_that_breaks_its_streams_is_left_alone(serve: Serve, name: str) -> None:
    bad = serve(MIDWAY[name][0])

    async def ask() -> None:
        settings = gateway(bad, route={"retries": 0}, breaker_failures=3, **patience(name))
        async with opened(settings) as gate:
            await fail_thrice(gate, stream=True)
            assert [state.failures for state in gate.tables.current.snapshot()] == [3]

    run(ask())
    assert len(bad.asked) == 3


def test_streams_that_end_well_forgive_one_that_did_not(serve: Serve) -> None:
    server = serve()

    async def ask() -> None:
        async with opened(gateway(server, breaker_failures=2, **QUICK)) as gate:
            for behaviour in (model_server.half_a_stream, model_server.well) * 3:
                server.behaviour = behaviour
                await answer(gate.relay, call(stream=True))
            assert gate.breakers == ["closed"]

    run(ask())


def test_a_long_stream_on_trial_does_not_keep_others_away(serve: Serve) -> None:
    server = serve(model_server.die)

    async def ask() -> None:
        settings = gateway(server, route={"retries": 0}, breaker_failures=1, breaker_seconds=0.1)
        async with opened(settings) as gate:
            with pytest.raises(EngineFailed):
                await answer(gate.relay, call(stream=True))
            await until(lambda: gate.breakers == ["half_open"])
            server.behaviour = model_server.paced(0.1)
            trial = asyncio.create_task(answer(gate.relay, call(stream=True)))
            breaker = gate.tables.current.upstreams["u"].replicas[0].breaker
            await until(lambda: len(server.asked) == 2 and breaker.is_ready)
            server.behaviour = model_server.well
            assert b"[DONE]" in await answer(gate.relay, call(stream=True))
            assert not trial.done()
            assert gate.breakers == ["closed"]
            await trial

    run(ask())


def test_who_leaves_says_nothing_of_the_replica(serve: Serve) -> None:
    server = serve(model_server.half_a_stream)

    async def ask() -> None:
        async with opened(gateway(server, breaker_failures=2, **QUICK)) as gate:
            await answer(gate.relay, call(stream=True))
            server.behaviour = model_server.hang_midway
            reply = await gate.relay.run(call(stream=True))
            await anext(aiter(reply.pieces))
            await reply.pieces.aclose()
            assert gate.outcomes[-1].status == 499
            server.behaviour = model_server.half_a_stream
            await answer(gate.relay, call(stream=True))
            assert gate.breakers == ["open"]

    run(ask())

"""Servers that fail in every way: the declared fallback answers, or a clear error in time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, cast

import orjson
import pytest

import model_server
from infra.errors import EngineFailed, EngineTimedOut, EngineUnreachable, Overloaded
from infra.gateway_settings import Gateway
from model_server import Behaviour, Misbehaving
from relayed import (
    HUNG,
    QUICK,
    Leaping,
    answer,
    call,
    fail_thrice,
    gateway,
    leap,
    opened,
    run,
    until,
)

Serve = Callable[..., Misbehaving]

BEFORE_THE_FIRST_BYTE: dict[str, Behaviour] = {
    "hung": model_server.freeze,
    "killed": model_server.die,
    "garbage": model_server.garbage,
    "garbage in place of the answer": model_server.garbage_events,
    "huge headers": model_server.huge_headers,
    "error 500": model_server.failing(500),
    "error 503": model_server.failing(503),
    "error without JSON": model_server.failing(502, b"<html>bad gateway</html>"),
    "its key refused": model_server.failing(401),
    "model not there": model_server.failing(404),
    "redirected": model_server.failing(302, Location="http://127.0.0.1:1/"),
}
ONLY_WHOLE: dict[str, Behaviour] = {"half a body": model_server.half_a_body}
ONLY_STREAMS: dict[str, Behaviour] = {
    "hung after the head": model_server.hang_after_head,
    "an event without end": model_server.endless_event,
}
CASES = [
    *((name, stream) for name in BEFORE_THE_FIRST_BYTE for stream in (False, True)),
    *((name, False) for name in ONLY_WHOLE),
    *((name, True) for name in ONLY_STREAMS),
]
BEHAVIOURS = BEFORE_THE_FIRST_BYTE | ONLY_WHOLE | ONLY_STREAMS


def patience(name: str) -> dict[str, float]:
    return HUNG if "hung" in name else QUICK


def with_fallback(bad: Misbehaving, good: Misbehaving, **options: float) -> Gateway:
    route = {"fallback": ["other"], "retries": 0}
    settings = gateway(bad, route=route, **QUICK | options).model_dump()
    settings["upstreams"]["good"] = {"urls": [good.url]}
    settings["routes"]["other"] = {"targets": [{"upstream": "good", "model": "big"}]}
    return Gateway.model_validate(settings)


@pytest.mark.parametrize(("name", "stream"), CASES)
def test_the_fallback_answers_for_a_server_that_fails(
    serve: Serve, name: str, stream: bool
) -> None:
    bad, good = serve(BEHAVIOURS[name]), serve(name="big")

    async def ask() -> None:
        async with opened(with_fallback(bad, good, **patience(name))) as gate:
            body = await answer(gate.relay, call(stream=stream))
            assert b"big" in body
            (outcome,) = gate.outcomes
            assert (outcome.status, outcome.upstream, outcome.attempts) == (200, "good", 2)
            assert outcome.usage.total_tokens == 12
            assert gate.is_idle

    run(ask())


@pytest.mark.parametrize(("name", "stream"), CASES)
def test_without_a_fallback_there_is_a_clear_error_in_time(
    serve: Serve, name: str, stream: bool
) -> None:
    bad = serve(BEHAVIOURS[name])

    async def ask() -> None:
        async with opened(gateway(bad, route={"retries": 0}, **patience(name))) as gate:
            # Words of the server's failure: those of the deadline name none.
            with pytest.raises(EngineFailed, match=r"127\.0\.0\.1|server"):
                await answer(gate.relay, call(stream=stream, seconds=60))
            (outcome,) = gate.outcomes
            assert outcome.status in {502, 504}
            assert outcome.error in {"engine_failed", "engine_timeout"}
            assert gate.is_idle

    run(ask())


@pytest.mark.parametrize("stream", [False, True])
def test_a_server_that_is_not_there_is_an_error(serve: Serve, stream: bool) -> None:
    gone = serve()
    model_server.stop(gone)

    async def ask() -> None:
        async with opened(gateway(gone)) as gate:
            with pytest.raises(EngineFailed, match="cannot be asked"):
                await answer(gate.relay, call(stream=stream))
            assert gate.is_idle

    run(ask())


def test_the_deadline_ends_a_stream_that_goes_on(serve: Serve) -> None:
    slow = serve(model_server.paced(0.05, tokens=1000))

    async def ask() -> None:
        async with opened(gateway(slow, breaker_failures=1, silence_seconds=600)) as gate:
            reply = await gate.relay.run(call(stream=True, seconds=60))
            begun = await anext(aiter(reply.pieces))
            leap(61)
            body = b"".join([begun, *[piece async for piece in reply.pieces]])
            assert b"engine_timeout" in body
            assert gate.breakers == ["closed"]  # it was asked for too much, it did not fail
            await until(lambda: slow.cut_off == 1)
            assert gate.is_idle

    run(ask(), on=Leaping)


def test_the_deadline_is_told_to_the_server(serve: Serve) -> None:
    server = serve()

    async def ask() -> None:
        async with opened(gateway(server)) as gate:
            await answer(gate.relay, call(seconds=3))

    run(ask())
    assert 2 < float(server.asked[0].headers["x-ragstone-timeout-seconds"]) <= 3


def test_the_breaker_opens_and_after_a_while_one_call_tries(serve: Serve) -> None:
    bad = serve(model_server.failing(500))
    asked_by_then: list[int] = []

    async def answer_late(server: Misbehaving, asked: model_server.Asked, write: Any) -> None:
        await asyncio.sleep(0.05)
        asked_by_then.append(len(server.asked))
        await model_server.well(server, asked, write)

    async def ask() -> None:
        settings = gateway(bad, route={"retries": 0}, breaker_failures=3, breaker_seconds=600)
        async with opened(settings) as gate:
            await fail_thrice(gate)
            assert len(bad.asked) == 3
            for replica in gate.tables.current.upstreams["u"].replicas:
                replica.breaker._clock = lambda: time.monotonic() + 601
            assert gate.breakers == ["half_open"]
            bad.behaviour = answer_late
            replies = await asyncio.gather(*(answer(gate.relay, call()) for _ in range(4)))
            assert len(replies) == 4
            assert asked_by_then[0] == 3 + 1  # the others waited for the trial
            assert gate.breakers == ["closed"]

    run(ask())


def test_a_probe_finds_a_server_that_came_back(serve: Serve) -> None:
    bad = serve(model_server.die)

    async def ask() -> None:
        settings = gateway(bad, route={"retries": 0}, breaker_failures=1, breaker_seconds=600)
        async with opened(settings) as gate:
            with pytest.raises(EngineFailed):
                await answer(gate.relay, call())
            upstream = gate.tables.current.upstreams["u"]
            bad.is_healthy = False
            await upstream.probe()
            assert gate.breakers == ["open"]
            bad.is_healthy, bad.behaviour = True, model_server.well
            await upstream.probe()
            assert gate.breakers == ["half_open"]
            await answer(gate.relay, call())
            assert gate.breakers == ["closed"]

    run(ask())


def test_a_server_that_asks_for_a_pause_gets_it(serve: Serve) -> None:
    busy = serve(model_server.failing(429, Retry_After="7"))

    async def ask() -> None:
        async with opened(gateway(busy, route={"retries": 0}, breaker_failures=1)) as gate:
            for _ in range(2):
                with pytest.raises(Overloaded) as caught:
                    await answer(gate.relay, call())
                assert 6 < caught.value.retry_after_seconds <= 7
            assert len(busy.asked) == 1
            assert gate.breakers == ["closed"]

    run(ask())


@pytest.mark.parametrize("stream", [False, True])
def test_a_retry_goes_to_another_replica(serve: Serve, stream: bool) -> None:
    bad, good = serve(model_server.die), serve(name="good")

    async def ask() -> None:
        async with opened(gateway(bad, good, breaker_failures=100)) as gate:
            for number in range(8):
                content = [{"role": "user", "content": f"question {number}"}]
                body = await answer(gate.relay, call(stream=stream, messages=content))
                assert b"good" in body
            assert all(outcome.attempts <= 2 for outcome in gate.outcomes)

    run(ask())
    assert len(good.asked) == 8


class Deaf(Leaping):
    """Of so many connections nothing is heard until their time is over; others are taken.

    The clock leaps there: a time short enough to wait for is too short for a busy machine.
    """

    silent = 1

    async def create_connection(self, *given: Any, **how: Any) -> Any:
        self.silent -= 1
        if self.silent >= 0:
            self.ahead_seconds += CONNECT_SECONDS + 1
            await asyncio.sleep(60)
        return await super().create_connection(*given, **how)


CONNECT_SECONDS = 5
PATIENT = 100.0
"""Seconds for a call whose loop leaps."""


@pytest.mark.parametrize("stream", [False, True])
def test_a_server_that_takes_no_connection_in_time_is_asked_once_more(
    serve: Serve, stream: bool
) -> None:
    server = serve()

    async def ask() -> None:
        settings = gateway(server, route={"retries": 5}, connect_seconds=CONNECT_SECONDS)
        async with opened(settings) as gate:
            assert b"tiny" in await answer(gate.relay, call(stream=stream, seconds=PATIENT))
            cast("Deaf", asyncio.get_running_loop()).silent = 100
            await gate.tables.current.upstreams["u"].replicas[0].server.close()
            with pytest.raises(EngineUnreachable, match=r"no connection within 5 s"):
                await answer(gate.relay, call(stream=stream, seconds=PATIENT))
            assert [outcome.attempts for outcome in gate.outcomes] == [2, 2]
            assert gate.is_idle

    run(ask(), on=Deaf)


def test_the_connection_that_a_server_did_not_take_is_made_to_another(serve: Serve) -> None:
    servers = serve(), serve()

    async def ask() -> None:
        async with opened(gateway(*servers, connect_seconds=CONNECT_SECONDS)) as gate:
            assert b"tiny" in await answer(gate.relay, call(seconds=PATIENT))
            assert gate.outcomes[0].attempts == 2
            assert sorted(state.failures for state in gate.tables.current.snapshot()) == [0, 1]

    run(ask(), on=Deaf)
    assert sum(len(server.asked) for server in servers) == 1


def test_a_lone_server_that_fails_once_is_asked_again(serve: Serve) -> None:
    server = serve()

    async def once(server: Misbehaving, asked: model_server.Asked, write: object) -> None:
        server.behaviour = model_server.well
        await model_server.die(server, asked, write)  # type: ignore[arg-type]

    server.behaviour = once

    async def ask() -> None:
        async with opened(gateway(server)) as gate:
            assert b"tiny" in await answer(gate.relay, call())
            assert gate.outcomes[0].attempts == 2

    run(ask())


def test_retries_are_a_share_of_the_requests(serve: Serve) -> None:
    bad = serve(model_server.die)

    async def ask() -> None:
        async with opened(gateway(bad, breaker_failures=1000)) as gate:
            for _ in range(50):
                with pytest.raises(EngineFailed):
                    await answer(gate.relay, call())

    run(ask())
    assert 55 <= len(bad.asked) <= 62  # a fifth, not as many again


def test_what_the_caller_did_wrong_is_told_in_the_server_s_words(serve: Serve) -> None:
    flat = {"object": "error", "message": "too long", "type": "BadRequestError", "code": 400}
    server = serve(model_server.failing(400, flat))

    async def ask() -> None:
        async with opened(gateway(server)) as gate:
            reply = await gate.relay.run(call())
            body = b"".join([piece async for piece in reply.pieces])
            assert reply.status == 400
            error = orjson.loads(body)["error"]
            assert (error["message"], error["type"]) == ("too long", "BadRequestError")
            assert gate.breakers == ["closed"]
            assert gate.outcomes[0].status == 400

    run(ask())
    assert len(server.asked) == 1


def test_callers_with_little_time_do_not_open_the_breaker(serve: Serve) -> None:
    slow = serve(model_server.paced(0.5))

    async def ask() -> None:
        async with opened(gateway(slow, breaker_failures=1)) as gate:
            for stream in (False, True):
                with pytest.raises(EngineTimedOut):
                    await answer(gate.relay, call(stream=stream, seconds=0.05))
            assert gate.breakers == ["closed"]
            assert gate.is_idle

    run(ask())


def test_a_server_that_hangs_past_half_the_route_s_deadline_is_known_to_hang(serve: Serve) -> None:
    bad, good = serve(model_server.hang), serve(name="big")

    async def ask() -> None:
        settings = with_fallback(bad, good).model_dump()
        settings["upstreams"]["u"]["first_byte_seconds"] = 60
        settings["routes"]["m"]["deadline_seconds"] = 0.4
        async with opened(Gateway.model_validate(settings)) as gate:
            assert b"big" in await answer(gate.relay, call(stream=True, seconds=30))
            assert [state.failures for state in gate.tables.current.snapshot()] == [1, 0]

    run(ask())


def test_a_whole_answer_that_takes_long_is_waited_for(serve: Serve) -> None:
    slow = serve(model_server.paced(0.06))

    async def ask() -> None:
        settings = gateway(slow, first_byte_seconds=0.1, breaker_failures=1)
        async with opened(settings) as gate:
            assert b"tiny" in await answer(gate.relay, call(seconds=10))
            assert [state.failures for state in gate.tables.current.snapshot()] == [0]
            assert gate.outcomes[0].attempts == 1

    run(ask())


def test_a_whole_answer_past_the_deadline_is_not_the_server_s_failure(serve: Serve) -> None:
    slow = serve(model_server.hang)

    async def ask() -> None:
        settings = gateway(slow, first_byte_seconds=0.1, breaker_failures=1)
        async with opened(settings) as gate:
            with pytest.raises(EngineTimedOut, match="deadline"):
                await answer(gate.relay, call(seconds=0.25))
            assert gate.breakers == ["closed"]
            assert (gate.outcomes[0].status, gate.outcomes[0].error) == (504, "engine_timeout")
            await until(lambda: slow.cut_off == 1)
            assert gate.is_idle

    run(ask())


def test_a_server_that_dies_during_a_whole_answer_is_given_up(serve: Serve) -> None:
    bad, good = serve(model_server.hang), serve(name="big")

    async def ask() -> None:
        settings = with_fallback(bad, good).model_dump()
        settings["upstreams"]["u"]["first_byte_seconds"] = 0.1
        async with opened(Gateway.model_validate(settings)) as gate:
            task = asyncio.create_task(answer(gate.relay, call(seconds=30)))
            await asyncio.sleep(0.2)
            assert not task.done()
            bad.is_healthy = False
            assert b"big" in await task
            assert [state.failures for state in gate.tables.current.snapshot()] == [1, 0]
            assert gate.is_idle

    run(ask())

"""Calls that share an answer keep their own time, limits and records."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from typing import Any

import pytest

import model_server
from gateway_outcomes import made_call, made_outcome
from infra.errors import EngineFailed, EngineTimedOut, Overloaded, RagstoneError, RateLimited
from infra.gateway_settings import Gateway
from model_server import Misbehaving
from relayed import Kept, Unmetered, call, gateway, opened, run
from service.gateway.cache import RepeatedCalls
from service.gateway.calls import Call
from service.gateway.replies import GatewayReply, whole
from service.gateway.routing import Variant

Serve = Callable[..., Misbehaving]
Model = Callable[[Call], Any]


class Case:
    """Answers from memory, before a model that is a function."""

    def __init__(self, model: Model) -> None:
        self.recorder = Kept()
        self.asked: list[Call] = []
        self._model = model
        self.calls = RepeatedCalls(
            self._run,
            settings=Gateway(),
            variant=lambda _: Variant("gpu", "small", "live"),
            meter=Unmetered(),
            recorder=self.recorder,
        )

    async def _run(self, asked: Call) -> GatewayReply:
        self.asked.append(asked)
        reply: GatewayReply = await self._model(asked)
        return reply

    async def ask(self, asked: Call) -> bytes:
        reply = await self.calls.run(asked)
        return b"".join([piece async for piece in reply.pieces])


def lasting(seconds: float, **more: Any) -> Call:
    return replace(made_call(temperature=0, **more), deadline=time.monotonic() + seconds)


def answered(body: bytes = b"{}") -> GatewayReply:
    return GatewayReply(200, {"content-length": "2"}, whole(body))


@pytest.mark.parametrize(
    ("error", "is_shared", "recorded"),
    [
        (EngineFailed("broke"), True, [502, 502]),
        (Overloaded("full"), True, [503, 503]),
        (RateLimited("the key of the first has used up its limit"), False, [200]),
    ],
    ids=["broken", "overloaded", "its own limit"],
)
def test_a_failure_is_shared_only_if_it_is_the_servers(
    error: RagstoneError, is_shared: bool, recorded: list[int]
) -> None:
    async def check() -> None:
        gate = asyncio.Event()

        async def model(asked: Call) -> GatewayReply:
            if len(case.asked) > 1:
                return answered()
            await gate.wait()
            raise error

        case = Case(model)
        tasks = [asyncio.create_task(case.ask(lasting(10))) for _ in range(3)]
        await asyncio.sleep(0.01)
        gate.set()
        first, *others = await asyncio.gather(*tasks, return_exceptions=True)
        assert first is error
        assert others == ([error, error] if is_shared else [b"{}", b"{}"])
        assert len(case.asked) == (1 if is_shared else 2)
        # The relay records who asks itself; here, those who were told what another was told.
        found = [(outcome.source, outcome.status) for outcome in case.recorder.outcomes]
        assert found == [("shared", status) for status in recorded]

    run(check())


def test_who_has_little_time_is_not_kept_waiting() -> None:
    async def check() -> None:
        going = asyncio.Event()

        async def model(asked: Call) -> GatewayReply:
            await going.wait()
            return answered()

        case = Case(model)
        first = asyncio.create_task(case.ask(lasting(10)))
        await asyncio.sleep(0.01)
        with pytest.raises(EngineTimedOut):
            await case.ask(lasting(0.1))
        going.set()
        (outcome,) = case.recorder.outcomes
        assert (outcome.status, outcome.error) == (504, "engine_timeout")
        assert await first == b"{}"

    run(check())


def test_who_has_much_more_time_than_the_first_asks_itself() -> None:
    async def check() -> None:
        async def model(asked: Call) -> GatewayReply:
            await asyncio.sleep(0.2)
            if time.monotonic() >= asked.deadline:
                raise EngineTimedOut("The deadline passed before an answer began")
            return answered()

        case = Case(model)
        tasks = [asyncio.create_task(case.ask(lasting(0.1)))]
        await asyncio.sleep(0.01)
        tasks += [asyncio.create_task(case.ask(lasting(10))) for _ in range(3)]
        first, *others = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(first, EngineTimedOut)
        assert others == [b"{}"] * 3
        assert len(case.asked) == 2

    run(check())


def test_who_joined_late_asks_itself_when_the_first_runs_out_of_time() -> None:
    async def check() -> None:
        async def model(asked: Call) -> GatewayReply:
            if len(case.asked) == 1:
                await asyncio.sleep(asked.deadline - time.monotonic())
                raise EngineTimedOut("The deadline passed before an answer began")
            return answered()

        case = Case(model)
        first = asyncio.create_task(case.ask(lasting(0.5)))
        await asyncio.sleep(0.3)
        second = asyncio.create_task(case.ask(lasting(0.5)))
        with pytest.raises(EngineTimedOut):
            await first
        assert await second == b"{}"

    run(check())


def test_who_leaves_while_waiting_is_recorded() -> None:
    async def check() -> None:
        async def model(asked: Call) -> GatewayReply:
            await asyncio.sleep(0.2)
            return answered()

        case = Case(model)
        first = asyncio.create_task(case.ask(lasting(10)))
        await asyncio.sleep(0.01)
        second = asyncio.create_task(case.ask(lasting(10)))
        await asyncio.sleep(0.01)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        assert [outcome.status for outcome in case.recorder.outcomes] == [499]
        assert await first == b"{}"

    run(check())


def test_a_shared_stream_ends_at_the_deadline_of_each_reader() -> None:
    async def check() -> None:
        going = asyncio.Event()

        async def pieces() -> AsyncGenerator[bytes, None]:
            yield b"data: 1\n\n"
            await going.wait()
            yield b"data: 2\n\n"

        async def model(asked: Call) -> GatewayReply:
            return GatewayReply(200, {"content-type": "text/event-stream"}, pieces())

        case = Case(model)
        first = asyncio.create_task(case.ask(lasting(10, stream=True)))
        await asyncio.sleep(0.01)
        body = await case.ask(lasting(0.2, stream=True))
        assert body.startswith(b"data: 1\n\n")
        assert b"engine_timeout" in body
        going.set()
        assert [outcome.status for outcome in case.recorder.outcomes] == [504]
        assert await first == b"data: 1\n\ndata: 2\n\n"

    run(check())


def asking(gate: Any) -> RepeatedCalls:
    return RepeatedCalls(
        gate.relay.run,
        settings=Gateway(),
        variant=lambda asked: gate.tables.current.find(asked.model).variant("ada"),
        meter=Unmetered(),
        recorder=gate.recorder,
    )


def test_who_shares_a_stream_that_breaks_is_recorded_as_the_first_is(serve: Serve) -> None:
    bad = serve(model_server.hang_midway)

    async def ask() -> None:
        async with opened(gateway(bad, silence_seconds=0.3)) as gate:
            calls = asking(gate)
            replies = [await calls.run(call(stream=True, temperature=0)) for _ in range(2)]
            bodies = [b"".join([piece async for piece in reply.pieces]) for reply in replies]
            assert b"engine_timeout" in bodies[0]
            assert bodies[0] == bodies[1]
            found = [(item.source, item.status, item.error) for item in gate.outcomes]
            assert found == [
                ("upstream", 504, "engine_timeout"),
                ("shared", 504, "engine_timeout"),
            ]

    run(ask())


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_from_memory_says_which_target_gave_it(serve: Serve, stream: bool) -> None:
    server = serve()

    async def ask() -> None:
        settings = gateway(server).model_dump()
        settings["routes"]["m"]["targets"][0]["tag"] = "canary"
        async with opened(Gateway.model_validate(settings)) as gate:
            calls = asking(gate)
            for how in (None, "cache"):
                reply = await calls.run(call(stream=stream, temperature=0))
                assert [piece async for piece in reply.pieces]
                assert reply.headers["x-ragstone-target"] == "canary"
                assert reply.headers.get("x-ragstone-cache") == how
            first, second = gate.outcomes
            assert (second.source, second.tag, second.served) == ("cache", "canary", "tiny")
            assert (second.status, second.finish_reason) == (200, first.finish_reason)

    run(ask())
    assert len(server.asked) == 1


def test_the_key_of_a_repeated_request_stays_here(serve: Serve) -> None:
    server = serve()

    async def ask() -> None:
        async with opened(gateway(server)) as gate:
            asked = replace(call(), idempotency_key="one", headers={"traceparent": "00-1-1-01"})
            reply = await asking(gate).run(asked)
            assert [piece async for piece in reply.pieces]

    run(ask())
    assert "idempotency-key" not in server.asked[0].headers
    assert server.asked[0].headers["traceparent"] == "00-1-1-01"


def test_an_answer_of_another_version_than_was_looked_for_is_not_kept() -> None:
    async def check() -> None:
        async def model(asked: Call) -> GatewayReply:
            outcome = made_outcome(asked, served=served.pop(0))
            return GatewayReply(200, {"content-length": "2"}, whole(b"{}"), outcome)

        served = ["small@2", "small", "small"]
        case = Case(model)
        for _ in range(3):
            await case.ask(lasting(10))
        assert len(case.asked) == 2

    run(check())


def test_who_has_left_is_told_nothing_of_what_is_already_there() -> None:
    async def check() -> None:
        async def pieces() -> AsyncGenerator[bytes, None]:
            for at in range(3):
                yield str(at).encode()

        async def model(asked: Call) -> GatewayReply:
            return GatewayReply(200, {}, pieces())

        case = Case(model)
        reply = await case.calls.run(lasting(10))
        assert await anext(aiter(reply.pieces)) == b"0"
        await asyncio.sleep(0.01)
        await reply.pieces.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(aiter(reply.pieces))

    run(check())

"""Copies of calls for a shadow: recorded as they ended, never returned or counted twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

import model_server
from infra.errors import InvalidConfiguration, StorageFailed
from infra.gateway_settings import Gateway
from model_server import Misbehaving
from monitoring.gateway_metrics import GatewayMetrics
from relayed import QUICK, Opened, Unmetered, answer, call, gateway, opened, run, until
from service.gateway.recording import MetricsRecorder

Serve = Callable[..., Misbehaving]


def shadowed(live: Misbehaving, shadow: Misbehaving, **target: Any) -> Gateway:
    settings = gateway(live).model_dump()
    settings["upstreams"]["lab"] = {"urls": [shadow.url], "breaker_failures": 3, **QUICK}
    copied = {"upstream": "lab", "model": "new", "tag": "shadow", **target}
    settings["routes"]["m"]["shadow"] = [copied]
    return Gateway.model_validate(settings)


async def both(gate: Opened, *, stream: bool) -> Any:
    """Ask once; return the outcome of the copy."""
    before = len(gate.outcomes)
    assert b"tiny" in await answer(gate.relay, call(stream=stream))
    await until(lambda: len(gate.outcomes) == before + 2)
    return next(item for item in gate.outcomes[before:] if item.tag == "shadow")


def test_a_call_that_cannot_be_noted_reaches_nobody_and_has_no_copy(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    live, shadow = serve(), serve(name="new")
    meter = Unmetered()
    admitted = meter.try_admit(call(), prompt_tokens=0, completion_tokens=0)

    def refuse(_: object) -> None:
        raise StorageFailed("No space left on device")

    monkeypatch.setattr(type(admitted), "begin", refuse)

    async def ask() -> None:
        async with opened(shadowed(live, shadow), meter=meter) as gate:
            with pytest.raises(StorageFailed):
                await gate.relay.run(call())
            (told,) = gate.outcomes
            assert (told.upstream, told.tag, told.served, told.attempts) == ("", "", "", 0)
            assert gate.is_idle

    run(ask())
    assert live.asked == shadow.asked == []


@pytest.mark.parametrize("stream", [False, True])
def test_a_copy_is_recorded_with_what_it_used(serve: Serve, stream: bool) -> None:
    live, shadow = serve(), serve(name="new")

    async def ask() -> None:
        async with opened(shadowed(live, shadow)) as gate:
            copy = await both(gate, stream=stream)
            assert (copy.status, copy.upstream, copy.served) == (200, "lab", "new")
            assert (copy.usage.total_tokens, copy.finish_reason) == (12, "stop")
            assert gate.is_idle

    run(ask())
    assert shadow.asked[0].body["model"] == "new"


@pytest.mark.parametrize(
    ("behaviour", "status", "error"),
    [
        (model_server.half_a_stream, 502, "engine_failed"),
        (model_server.early_end, 502, "engine_failed"),
        (model_server.fail_midway, 502, "500"),
        (model_server.hang_midway, 504, "engine_timeout"),
        (model_server.failing(500), 502, "engine_failed"),
        (model_server.failing(400), 400, "invalid_request"),
    ],
)
def test_a_copy_that_breaks_is_recorded_as_broken(
    serve: Serve, behaviour: Any, status: int, error: str
) -> None:
    live, shadow = serve(), serve(behaviour)

    async def ask() -> None:
        async with opened(shadowed(live, shadow)) as gate:
            copy = await both(gate, stream=True)
            assert (copy.status, copy.error) == (status, error)
            assert gate.is_idle

    run(ask())


def test_a_shadow_that_breaks_its_streams_is_left_alone(serve: Serve) -> None:
    live, shadow = serve(), serve(model_server.half_a_stream)

    async def ask() -> None:
        async with opened(shadowed(live, shadow)) as gate:
            for _ in range(3):
                await both(gate, stream=True)
            assert gate.breakers == ["closed", "open"]

    run(ask())


def test_the_weight_of_a_shadow_is_the_share_that_is_copied(serve: Serve) -> None:
    live, shadow = serve(), serve()

    async def ask(weight: float) -> int:
        async with opened(shadowed(live, shadow, weight=weight)) as gate:
            for _ in range(30):  # fewer than may be under way at once
                await answer(gate.relay, call())
            await until(lambda: gate.tables.current.users == 0)
            return sum(item.tag == "shadow" for item in gate.outcomes)

    assert run(ask(0.0)) == 0
    assert run(ask(1.0)) == 30
    assert 0 < run(ask(0.5)) < 30  # one in 500 million runs lies outside


def test_a_weight_that_is_no_share_is_refused(serve: Serve) -> None:
    with pytest.raises(InvalidConfiguration, match="shadow.*0 to 1"):
        Opened(shadowed(serve(), serve(), weight=9))


def test_what_was_not_in_memory_is_counted_once(serve: Serve) -> None:
    live, shadow = serve(), serve()
    registry = CollectorRegistry()
    metrics = MetricsRecorder(GatewayMetrics(registry))

    async def ask() -> None:
        async with opened(shadowed(live, shadow)) as gate:
            asked = call()
            asked.was_looked_up = True
            await answer(gate.relay, asked)
            await until(lambda: len(gate.outcomes) == 2)
            for outcome in gate.outcomes:
                metrics.record(outcome)

    run(ask())
    assert registry.get_sample_value("ragstone_answer_cache_total", {"result": "miss"}) == 1

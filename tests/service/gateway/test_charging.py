"""What a call costs that ends without an answer, and what of a limit it uses up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import model_server
from infra.database.engine import Database
from infra.errors import EngineFailed, EngineTimedOut, RagstoneError, RateLimited
from infra.gateway_settings import Gateway, Price, Quota
from model_server import Behaviour, Misbehaving
from relayed import Opened, answer, call, gateway, opened, run, until
from service.gateway.calls import Call
from service.gateway.clerk import Clerk
from service.gateway.metering import Metering
from service.gateway.usage import report

Serve = Callable[..., Misbehaving]
WORDS = "word " * 80
"""A prompt of 400 bytes, taken for about 100 tokens."""
LIMITS = Quota(requests_per_minute=3, tokens_per_minute=700)


@pytest.fixture
def clerk(database: Database, tmp_path: Path) -> Iterator[Clerk]:
    clerk = Clerk(database, tmp_path / "money")
    clerk.start()
    yield clerk
    clerk.stop()


class Charged:
    """A gate with a price and a limit, and what became of both."""

    def __init__(self, clerk: Clerk, settings: Gateway) -> None:
        price = Price(input_per_million=1_000_000, output_per_million=1_000_000)
        more = {"prices": {"m": price}, "model_limits": {"m": LIMITS}}
        self.settings = settings.model_copy(update=more)
        self.meter = Metering(self.settings, clerk)
        self._clerk = clerk

    def left(self) -> tuple[int, int]:
        """Return the requests and the tokens that may still be sent in this minute."""
        headers = self.meter.try_admit(ask(), prompt_tokens=0, completion_tokens=0)
        assert headers is not None
        kinds = ("requests", "tokens")
        found = [int(headers.headers[f"x-ratelimit-remaining-{kind}"]) for kind in kinds]
        headers.refund()
        return found[0] + 1, found[1]

    def usage(self, database: Database) -> tuple[int, float, int]:
        """Return requests, cost and prompt tokens as they stand in the database."""
        self._clerk.stop()
        (row,) = report(database, [])
        return row.count.requests, row.count.cost / 1e9, row.count.prompt_tokens


def ask(**more: Any) -> Call:
    return call(messages=[{"role": "user", "content": WORDS}], max_tokens=5, **more)


async def _unanswered(gate: Opened, asked: Call) -> None:
    with pytest.raises(RagstoneError):
        await answer(gate.relay, asked)


@pytest.mark.parametrize("stream", [False, True])
def test_a_deadline_that_passes_pays_for_the_prompt(
    serve: Serve, clerk: Clerk, database: Database, stream: bool
) -> None:
    server = serve(model_server.hang)
    case = Charged(clerk, gateway(server, route={"retries": 0}))

    async def check() -> None:
        async with opened(case.settings, meter=case.meter) as gate:
            with pytest.raises(EngineTimedOut):
                await answer(gate.relay, ask(stream=stream, seconds=0.3))
            requests, tokens = case.left()
            assert requests == 2
            assert tokens < 650
            assert 100 <= gate.outcomes[0].usage.prompt_tokens <= 120

    run(check())
    requests, cost, prompt = case.usage(database)
    assert (requests, cost) == (1, prompt)
    assert 100 <= prompt <= 120


@pytest.mark.parametrize(
    "behaviour",
    [
        model_server.failing(400),
        model_server.failing(422),
        model_server.failing(500),
        model_server.die,
        model_server.half_a_body,
    ],
)
def test_what_a_server_refuses_or_fails_at_costs_nothing_and_counts(
    serve: Serve, clerk: Clerk, database: Database, behaviour: Behaviour
) -> None:
    case = Charged(clerk, gateway(serve(behaviour), route={"retries": 0}))

    async def check() -> None:
        async with opened(case.settings, meter=case.meter) as gate:
            for _ in range(3):
                await asyncio.gather(answer(gate.relay, ask()), return_exceptions=True)
            with pytest.raises(RateLimited, match="3 requests"):
                await answer(gate.relay, ask())

    run(check())
    assert case.usage(database) == (3, 0.0, 0)


def test_what_no_server_was_asked_counts_for_nothing(serve: Serve, clerk: Clerk) -> None:
    server = serve(model_server.die)
    case = Charged(clerk, gateway(server, route={"retries": 0}, breaker_failures=1))

    async def check() -> None:
        async with opened(case.settings, meter=case.meter) as gate:
            await _unanswered(gate, ask())
            assert gate.breakers == ["open"]
            before = case.left()
            for _ in range(5):
                with pytest.raises(EngineFailed, match="No server"):
                    await answer(gate.relay, ask())
            assert case.left()[0] == before[0]

    run(check())


def test_who_leaves_before_the_answer_pays_for_the_prompt(
    serve: Serve, clerk: Clerk, database: Database
) -> None:
    server = serve(model_server.hang)
    case = Charged(clerk, gateway(server))

    async def check() -> None:
        async with opened(case.settings, meter=case.meter) as gate:
            task = asyncio.create_task(answer(gate.relay, ask()))
            await until(lambda: server.running == 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    run(check())
    requests, cost, prompt = case.usage(database)
    assert (requests, cost) == (1, prompt)
    assert prompt >= 100


def test_a_fallback_is_charged_at_the_price_of_what_was_asked_for(
    serve: Serve, clerk: Clerk, database: Database
) -> None:
    bad, good = serve(model_server.die), serve(name="big")
    settings = gateway(bad, route={"fallback": ["other"], "retries": 0}).model_dump()
    settings["upstreams"]["good"] = {"urls": [good.url]}
    settings["routes"]["other"] = {"targets": [{"upstream": "good", "model": "big"}]}
    case = Charged(clerk, Gateway.model_validate(settings))

    async def check() -> None:
        async with opened(case.settings, meter=case.meter) as gate:
            assert b"big" in await answer(gate.relay, ask())
            assert gate.outcomes[0].cost == model_server.USAGE["total_tokens"]

    run(check())
    assert case.usage(database)[:2] == (1, model_server.USAGE["total_tokens"])
    assert report(database, ["model"])[0].model == "m"

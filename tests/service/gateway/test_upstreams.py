"""Replicas and the queue before them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import pytest

import model_server
from infra.errors import EngineFailed, Overloaded
from infra.gateway_settings import Upstream as Settings
from model_server import Misbehaving
from relayed import answer, call, gateway, opened, run, until
from service.engines import ServerContext
from service.engines.openai_http import build_server
from service.gateway.upstreams import AFFINITY_SLACK, Upstream

Serve = Callable[..., Misbehaving]
FAR = 1e12


def upstream(replicas: int, **options: object) -> Upstream:
    """Servers that nobody asks anything."""
    servers = [build_server(ServerContext(f"http://127.0.0.1:{port}")) for port in range(replicas)]
    return Upstream("u", Settings.model_validate(options), servers)


def test_a_prefix_stays_at_its_replica_and_prefixes_are_spread() -> None:
    replicas = upstream(4)
    homes = Counter()
    for prefix in range(0, 4_000_000, 1_000):
        first, again = (replicas.take(prefix) for _ in range(2))
        assert first is again
        assert first is not None
        homes[first.server.address] += 1
        replicas.release(first)
        replicas.release(first)
    assert len(homes) == 4
    assert max(homes.values()) < 1.2 * min(homes.values())


def test_one_replica_less_moves_only_its_own_prefixes() -> None:
    four, three = upstream(4), upstream(3)
    moved = 0
    for prefix in range(0, 1_000_000, 1_000):
        one, other = four.take(prefix), three.take(prefix)
        assert one is not None
        assert other is not None
        if one.server.address != "http://127.0.0.1:3":
            moved += one.server.address != other.server.address
        four.release(one)
        three.release(other)
    assert moved == 0


def test_a_replica_that_is_much_busier_is_passed_over() -> None:
    replicas = upstream(2)
    taken = [replicas.take(7) for _ in range(20)]
    counts = Counter(replica.server.address for replica in taken if replica)
    assert sum(counts.values()) == 20
    assert max(counts.values()) - min(counts.values()) <= AFFINITY_SLACK + 1


def test_the_queue_is_first_come_first_served_and_bounded(serve: Serve) -> None:
    server = serve(model_server.paced(0.01))

    async def ask() -> None:
        settings = gateway(server, max_running=2, max_waiting=3)
        async with opened(settings) as gate:
            order: list[int] = []

            async def one(number: int) -> None:
                await answer(gate.relay, call(stream=True))
                order.append(number)

            tasks = [asyncio.create_task(one(number)) for number in range(5)]
            await until(lambda: gate.tables.current.upstreams["u"].waiting == 3)
            with pytest.raises(Overloaded, match="2 requests run at 'u' and 3 wait") as caught:
                await answer(gate.relay, call())
            assert caught.value.retry_after_seconds >= 1
            await asyncio.gather(*tasks)
            assert sorted(order[:2]) == [0, 1]
            assert order[-1] in {3, 4}
            assert gate.is_idle

    run(ask())
    assert len(server.asked) == 5


def test_nobody_waits_past_its_deadline(serve: Serve) -> None:
    server = serve(model_server.paced(0.5))

    async def ask() -> None:
        async with opened(gateway(server, max_running=1, silence_seconds=9)) as gate:
            busy = asyncio.create_task(answer(gate.relay, call(stream=True)))
            await until(lambda: server.running == 1)
            with pytest.raises(Exception, match="deadline"):
                await answer(gate.relay, call(seconds=0.1))
            assert gate.outcomes[0].error == "engine_timeout"
            busy.cancel()
            await asyncio.gather(busy, return_exceptions=True)
            assert gate.is_idle

    run(ask())


def test_a_full_upstream_hands_over_to_the_fallback(serve: Serve) -> None:
    busy, free = serve(model_server.hang), serve(name="free")

    async def ask() -> None:
        content = gateway(
            busy, max_running=1, max_waiting=0, first_byte_seconds=30, route={"fallback": ["n"]}
        ).model_dump()
        content["upstreams"]["v"] = {"urls": [free.url]}
        content["routes"]["n"] = {"targets": [{"upstream": "v"}]}
        async with opened(type(gateway()).model_validate(content)) as gate:
            first = asyncio.create_task(answer(gate.relay, call()))
            await until(lambda: busy.running == 1)
            assert b"free" in await answer(gate.relay, call())
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)

    run(ask())


def test_places_go_to_those_who_can_use_them() -> None:
    async def wait() -> None:
        replicas = upstream(2, max_running=1)
        first, second = replicas.take(1), replicas.take(1)
        assert first is not None
        assert second is not None
        picky = asyncio.create_task(replicas.acquire(1, without=[first], deadline=FAR))
        plain = asyncio.create_task(replicas.acquire(1, deadline=FAR))
        await until(lambda: replicas.waiting == 2)
        replicas.release(first)
        assert await plain is first
        assert not picky.done()
        replicas.release(second)
        assert await picky is second

    run(wait())


def test_those_who_wait_are_told_when_nobody_is_left() -> None:
    async def wait() -> None:
        replicas = upstream(1, max_running=1, breaker_failures=1)
        taken = replicas.take(1)
        assert taken is not None
        waiting = [asyncio.create_task(replicas.acquire(1, deadline=FAR)) for _ in range(3)]
        await until(lambda: replicas.waiting == 3)
        taken.note_failure()
        replicas.release(taken)
        for each in waiting:
            with pytest.raises(EngineFailed, match="is well"):
                await each
        assert replicas.waiting == 0

    run(wait())

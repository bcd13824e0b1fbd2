"""Answers in memory go with the documents that they quote, and with nothing else."""

from __future__ import annotations

import asyncio
import gc
import math
import threading
import weakref
from collections.abc import Callable, Collection
from typing import Any

import pytest

from service.gateway.memory import OVERHEAD_BYTES, Memory, Terms, digest, named
from service.gateway.replies import GatewayReply, whole
from service.gateway.sharing import Fingerprint, SharedAnswer, Span
from set_clock import Clock

FOREVER = Span(0.0, math.inf)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def memory(clock: Clock, *, most_bytes: int = 2**20, seconds: float = 10.0) -> Memory:
    return Memory(most_bytes=most_bytes, seconds=seconds, clock=clock)


def fingerprint(name: str, *, may_quote: bool = False, size: int = 0) -> Fingerprint:
    key, length = digest(name)
    return Fingerprint(key, key, size or length, may_quote=may_quote)


def terms(documents: Collection[str] = ()) -> Terms:
    return Terms(FOREVER, outlives=True, is_final=lambda _: True, documents=lambda: documents)


def begin(kept: Memory, name: str, *documents: str, gate: asyncio.Event | None = None) -> Any:
    async def produce() -> GatewayReply:
        if gate is not None:
            await gate.wait()
        return GatewayReply(200, {"content-length": "2"}, whole(name.encode()))

    return kept.begin(fingerprint(name, may_quote=bool(documents)), produce, terms(documents))


async def read(answer: SharedAnswer) -> bytes:
    reply = await answer.join()
    return b"".join([piece async for piece in reply.pieces])


def is_known(kept: Memory, name: str, *, may_quote: bool = True) -> bool:
    return kept.find(fingerprint(name, may_quote=may_quote)) is not None


def test_only_what_quotes_a_removed_document_is_dropped(clock: Clock) -> None:
    async def check() -> None:
        kept = memory(clock)
        for name, documents in {"a": ["1", "2"], "b": ["2", "3"], "c": ["3"], "d": []}.items():
            await read(begin(kept, name, *documents))
        assert kept.documents() == {"1", "2", "3"}
        assert kept.forget(["9"]) == 0
        assert kept.forget(["2", "9"]) == 2
        assert [is_known(kept, name) for name in "abcd"] == [False, False, True, True]
        assert is_known(kept, "d", may_quote=False)
        assert kept.documents() == {"3"}

    asyncio.run(check())


def test_what_may_quote_and_is_under_way_meanwhile_is_told_and_not_kept(clock: Clock) -> None:
    async def check() -> None:
        kept, gate = memory(clock), asyncio.Event()
        quoting, plain = begin(kept, "a", "1", gate=gate), begin(kept, "b", gate=gate)
        await asyncio.sleep(0)
        kept.forget(["1"])
        gate.set()
        assert [await read(quoting), await read(plain)] == [b"a", b"b"]
        assert not is_known(kept, "a")
        assert is_known(kept, "b", may_quote=False)

    asyncio.run(check())


def test_one_that_is_dropped_while_it_is_made_is_told_and_not_kept(clock: Clock) -> None:
    async def check() -> None:
        kept, gate = memory(clock), asyncio.Event()
        first = begin(kept, "a", gate=gate)
        await asyncio.sleep(0)
        kept.drop(first)
        assert not is_known(kept, "a")
        gate.set()
        assert await read(first) == b"a"
        assert not is_known(kept, "a")
        second = begin(kept, "a")
        assert await read(second) == b"a"
        kept.drop(first)
        assert is_known(kept, "a")
        kept.drop(second)
        assert not is_known(kept, "a")

    asyncio.run(check())


@pytest.mark.parametrize("documents", [(), ("1",)])
def test_other_bounds_renew_no_answer(clock: Clock, documents: tuple[str, ...]) -> None:
    async def check() -> None:
        kept = memory(clock, seconds=10)
        await read(begin(kept, "a", *documents))
        clock.now = 9.0
        kept.adopt(most_bytes=2**21, seconds=10)
        assert is_known(kept, "a")
        clock.now = 10.5
        assert not is_known(kept, "a")
        kept.adopt(most_bytes=2**21, seconds=100)
        assert not is_known(kept, "a")
        await read(begin(kept, "b", *documents))
        clock.now = 20.0
        kept.adopt(most_bytes=2**21, seconds=5)
        assert not is_known(kept, "b")

    asyncio.run(check())


def test_fewer_bytes_push_out_what_is_too_much(clock: Clock) -> None:
    async def check() -> None:
        kept = memory(clock)
        for number in range(8):
            await read(begin(kept, str(number), *(["1"] if number % 2 else [])))
        kept.adopt(most_bytes=4 * (OVERHEAD_BYTES + 100), seconds=10)
        left = [is_known(kept, str(number)) for number in range(8)]
        assert 3 <= sum(left) <= 4

    asyncio.run(check())


def test_the_request_counts_too(clock: Clock) -> None:
    async def check() -> None:
        kept = memory(clock, most_bytes=100_000)
        for number in range(3):
            asked = fingerprint(str(number), size=40_000)

            async def produce() -> GatewayReply:
                return GatewayReply(200, {}, whole(b"{}"))

            await read(kept.begin(asked, produce, terms()))
        assert [is_known(kept, str(number)) for number in range(3)] == [False, True, True]

    asyncio.run(check())


def test_a_kept_answer_holds_on_to_nothing_that_made_it(clock: Clock) -> None:
    class Request:
        pass

    def begin_for(kept: Memory, request: Request) -> SharedAnswer:
        async def produce() -> GatewayReply:
            return GatewayReply(200, {}, whole(repr(request).encode()))

        def documents() -> Collection[str]:
            return [repr(request)]

        made = Terms(FOREVER, outlives=True, is_final=lambda _: True, documents=documents)
        return kept.begin(fingerprint("a", may_quote=True), produce, made)

    async def check() -> None:
        kept, request = memory(clock), Request()
        watched = weakref.ref(request)
        await read(begin_for(kept, request))
        del request
        gc.collect()
        assert is_known(kept, "a")
        assert watched() is None

    asyncio.run(check())


def test_threads_may_forget_while_answers_come_and_go(clock: Clock) -> None:
    kept = memory(clock, most_bytes=60 * OVERHEAD_BYTES)
    failed: list[BaseException] = []
    is_over = threading.Event()

    def attempt(work: Callable[[int], object]) -> None:
        number = 0
        try:
            while not is_over.is_set():
                work(number)
                number += 1
        except BaseException as error:  # noqa: BLE001 - told below, where the test sees it
            failed.append(error)

    def forget(number: int) -> None:
        kept.forget([str(number % 7)])
        kept.documents()

    async def fill() -> None:
        for number in range(1_000):
            clock.now = number / 100
            await read(begin(kept, str(number), *([str(number % 7)] if number % 3 else [])))
            is_known(kept, str(number // 2))
            if number % 200 == 0:
                kept.adopt(most_bytes=(60 + number // 200) * OVERHEAD_BYTES, seconds=10)

    threads = [threading.Thread(target=attempt, args=(forget,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        asyncio.run(fill())
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
    assert failed == []
    kept.forget([str(number) for number in range(7)])
    assert kept.documents() == set()


def test_a_name_belongs_to_its_owner() -> None:
    mine, yours = (named("k", {"a": 1}, whose=[who], may_quote=False) for who in ("me", "you"))
    assert mine.request == yours.request
    assert mine.key != yours.key

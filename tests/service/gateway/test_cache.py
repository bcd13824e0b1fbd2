"""Identical deterministic calls are asked once, and never across tenants; keys replay requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway_outcomes import made_call
from infra.contracts import Usage
from infra.errors import EngineFailed, InvalidRequest
from infra.gateway_settings import Gateway
from service.callers import Caller
from service.gateway.cache import RepeatedCalls, Variant
from service.gateway.calls import Call, Outcome
from service.gateway.replies import GatewayReply


@dataclass
class Ticket:
    headers: dict[str, str] = field(default_factory=lambda: {"x-ratelimit-limit-requests": "9"})

    def begin(self) -> None:
        raise AssertionError("what comes from memory is sent to nobody")

    def settle(self, usage: Usage) -> float:
        assert usage == Usage(), "what comes from memory costs nothing"
        return 0.0

    def waive(self, usage: Usage) -> None:
        pass

    def refund(self) -> None:
        pass


class Meter:
    def __init__(self) -> None:
        self.admitted = 0

    def try_admit(self, call: Call, *, prompt_tokens: int, completion_tokens: int) -> None:
        """Have it waited for, as where a budget is looked up."""
        assert (prompt_tokens, completion_tokens) == (0, 0), call.model

    async def admit(self, call: Call, *, prompt_tokens: int, completion_tokens: int) -> Ticket:
        assert (prompt_tokens, completion_tokens) == (0, 0), call.model
        self.admitted += 1
        return Ticket()


class Recorder:
    def __init__(self) -> None:
        self.sources: list[str] = []

    def record(self, outcome: Outcome) -> None:
        self.sources.append(outcome.source)


class Model:
    """A model that answers with who asked what for the how-manieth time, piece by piece."""

    def __init__(self, *, status: int = 200, pieces: int = 3) -> None:
        self.asked = 0
        self.stopped = 0
        self.status = status
        self.pieces = pieces
        self.gate = asyncio.Event()
        self.gate.set()
        self.breaks = False
        self.upstream, self.served = "gpu", "small"

    async def run(self, call: Call) -> GatewayReply:
        self.asked += 1
        outcome = Outcome(call, self.status, upstream=self.upstream, served=self.served, tag="live")
        return GatewayReply(self.status, {}, outcome=outcome, pieces=self._pieces(call))

    async def _pieces(self, call: Call) -> AsyncGenerator[bytes, None]:
        number, is_at_end = self.asked, False
        try:
            for at in range(self.pieces):
                await self.gate.wait()
                if self.breaks and at == 1:
                    raise EngineFailed("broke")
                yield f"{call.caller.tenant}:{call.caller.name}:{number}:{at};".encode()
            is_at_end = True
        finally:
            self.stopped += not is_at_end


class Case:
    def __init__(self, model: Model | None = None, **settings: Any) -> None:
        self.model = model or Model()
        self.meter, self.recorder = Meter(), Recorder()
        self.now = 0.0
        self.variant: Variant | None = Variant("gpu", "small", "live")
        self.calls = RepeatedCalls(
            self.model.run,
            settings=Gateway(**settings),
            variant=lambda _call: self.variant,
            meter=self.meter,
            recorder=self.recorder,
            clock=lambda: self.now,
        )

    async def ask(self, call: Call) -> bytes:
        reply = await self.calls.run(call)
        return b"".join([piece async for piece in reply.pieces])


def asked(**body: Any) -> Call:
    return made_call(temperature=0, **body)


def named(name: str, **body: Any) -> Call:
    return replace(made_call(**body), idempotency_key=name)


def test_an_identical_deterministic_call_is_answered_from_memory() -> None:
    async def check() -> None:
        case = Case()
        first, second = await case.ask(asked()), await case.ask(asked(user="somebody"))
        assert first == second == b"acme:ada:1:0;acme:ada:1:1;acme:ada:1:2;"
        assert case.model.asked == 1
        assert case.recorder.sources == ["cache"]
        assert case.meter.admitted == 1

    asyncio.run(check())


@pytest.mark.parametrize(
    "call",
    [made_call(), made_call(temperature=0.7), asked(store=True)],
    ids=["plain", "warm", "stored"],
)
def test_a_call_whose_answer_may_differ_is_always_asked(call: Call) -> None:
    async def check() -> None:
        case = Case()
        await case.ask(call)
        await case.ask(call)
        assert case.model.asked == 2

    asyncio.run(check())


def test_identical_calls_at_once_are_asked_once() -> None:
    async def check() -> None:
        case = Case()
        case.model.gate.clear()
        tasks = [asyncio.create_task(case.ask(asked())) for _ in range(20)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        case.model.gate.set()
        assert len(set(await asyncio.gather(*tasks))) == 1
        assert case.model.asked == 1
        assert case.recorder.sources == ["shared"] * 19

    asyncio.run(check())


def test_the_work_goes_on_while_one_reader_is_left_and_stops_with_the_last() -> None:
    async def check() -> None:
        case = Case()
        case.model.gate.clear()
        first, second = [await case.calls.run(asked()) for _ in range(2)]
        await asyncio.sleep(0.01)
        await first.pieces.aclose()
        await asyncio.sleep(0.01)
        assert case.model.stopped == 0
        await second.pieces.aclose()
        await asyncio.sleep(0.01)
        assert (case.model.asked, case.model.stopped) == (1, 1)

    asyncio.run(check())


def test_leaving_while_the_answer_is_written_stops_the_model() -> None:
    async def check() -> None:
        case = Case()
        reply = await case.calls.run(asked())
        await anext(aiter(reply.pieces))
        case.model.gate.clear()
        reply = await case.calls.run(asked(seed=1))
        await asyncio.sleep(0.01)
        await reply.pieces.aclose()
        await asyncio.sleep(0.01)
        assert case.model.stopped == 1
        case.model.gate.set()
        await case.ask(asked(seed=1))
        assert case.model.asked == 3

    asyncio.run(check())


def test_a_broken_answer_reaches_every_reader_as_a_failure_and_is_not_kept() -> None:
    async def check() -> None:
        case = Case()
        case.model.breaks = True
        case.model.gate.clear()
        tasks = [asyncio.create_task(case.ask(asked())) for _ in range(3)]
        await asyncio.sleep(0.01)
        case.model.gate.set()
        for found in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(found, EngineFailed)
        case.model.breaks = False
        await case.ask(asked())
        assert case.model.asked == 2

    asyncio.run(check())


@pytest.mark.parametrize("status", [400, 429, 500])
def test_a_failure_is_not_kept(status: int) -> None:
    async def check() -> None:
        case = Case(Model(status=status))
        await case.ask(asked())
        await case.ask(asked())
        assert case.model.asked == 2

    asyncio.run(check())


def test_what_is_old_is_asked_again() -> None:
    async def check() -> None:
        case = Case(cache_seconds=10)
        await case.ask(asked())
        case.now = 10.5
        await case.ask(asked())
        assert case.model.asked == 2

    asyncio.run(check())


def test_another_target_or_adapter_is_asked_itself() -> None:
    async def check() -> None:
        case = Case()
        await case.ask(asked())
        case.variant = Variant("gpu", "small@sha256:2", "live")
        await case.ask(asked())
        case.variant = None
        await case.ask(asked())
        await case.ask(asked())
        assert case.model.asked == 4

    asyncio.run(check())


def test_an_answer_that_a_fallback_gave_is_not_kept() -> None:
    async def check() -> None:
        case = Case()
        case.model.upstream = "last resort"
        await case.ask(asked())
        case.model.upstream = "gpu"
        await case.ask(asked())
        assert case.model.asked == 2

    asyncio.run(check())


def test_forgetting_drops_what_quotes_what_is_kept_and_what_is_under_way() -> None:
    async def check() -> None:
        case = Case()
        kept, other, late = (replace(asked(seed=at), documents=(f"f{at}",)) for at in range(3))
        plain = [asked(seed=3), named("one")]
        for call in (kept, other, *plain):
            await case.ask(call)
        case.model.gate.clear()
        waiting = asyncio.create_task(case.ask(late))
        await asyncio.sleep(0.01)
        assert case.calls.documents() == {"f0", "f1"}
        assert case.calls.forget(["f0"]) == 1
        case.model.gate.set()
        await waiting
        assert case.model.asked == 5
        for call in (other, *plain):
            await case.ask(call)
        assert case.model.asked == 5
        await case.ask(kept)
        await case.ask(late)
        assert case.model.asked == 7

    asyncio.run(check())


def test_the_cache_stays_below_its_bytes() -> None:
    async def check() -> None:
        case = Case(Model(pieces=20), cache_bytes=100_000)
        for number in range(200):
            await case.ask(asked(seed=number))
        kept = case.calls._kept._plain
        assert kept.currsize <= 100_000
        assert len(kept) > 10

    asyncio.run(check())


def test_a_reload_renews_no_answer_and_keeps_those_with_a_key() -> None:
    async def check() -> None:
        case = Case(cache_seconds=10, idempotency_seconds=20)
        await case.ask(asked())
        await case.ask(named("one"))
        case.now = 9.0
        case.calls.adopt(Gateway(cache_seconds=10, idempotency_seconds=20, cache_bytes=2**22))
        await case.ask(asked())
        assert case.model.asked == 2
        case.now = 10.5
        await case.ask(asked())
        await case.ask(named("one"))
        assert case.model.asked == 3

    asyncio.run(check())


def test_without_a_cache_everything_is_asked_and_nothing_breaks() -> None:
    async def check() -> None:
        case = Case(cache_bytes=0)
        await case.ask(asked())
        await case.ask(asked())
        assert case.model.asked == 2

    asyncio.run(check())


def test_a_repeated_request_is_replayed_by_its_key() -> None:
    async def check() -> None:
        case = Case(cache_bytes=0)
        first, second = await case.ask(named("one")), await case.ask(named("one"))
        assert first == second
        assert case.model.asked == 1
        assert case.recorder.sources == ["replayed"]
        await case.ask(named("two"))
        assert case.model.asked == 2

    asyncio.run(check())


def test_a_key_that_named_another_request_is_refused() -> None:
    async def check() -> None:
        case = Case()
        await case.ask(named("one"))
        with pytest.raises(InvalidRequest, match="another request"):
            await case.ask(named("one", top_p=0.5))

    asyncio.run(check())


def test_the_work_of_a_request_with_a_key_outlives_a_lost_connection() -> None:
    async def check() -> None:
        case = Case()
        reply = await case.calls.run(named("one"))
        await anext(aiter(reply.pieces))
        await reply.pieces.aclose()
        assert await case.ask(named("one")) == b"acme:ada:1:0;acme:ada:1:1;acme:ada:1:2;"
        assert case.model.asked == 1
        assert case.model.stopped == 0

    asyncio.run(check())


@pytest.mark.parametrize("name", ["", "x" * 300])
def test_an_impossible_key_is_refused(name: str) -> None:
    async def check() -> None:
        with pytest.raises(InvalidRequest, match="Idempotency-Key"):
            await Case().ask(named(name))

    asyncio.run(check())


CALLERS = st.builds(
    Caller,
    key_id=st.sampled_from(["k1", "k2"]),
    name=st.sampled_from(["ada", "ben"]),
    tenant=st.sampled_from([None, "acme", "other"]),
    groups=st.frozensets(st.sampled_from(["group:a", "group:b"])),
)
CALLS = st.builds(
    lambda caller, model, seed, name: replace(
        made_call(model=model, seed=seed),
        caller=caller,
        idempotency_key=name,
    ),
    CALLERS,
    st.sampled_from(["small", "large"]),
    st.sampled_from([1, 2]),
    st.sampled_from([None, None, "one"]),
)


@settings(max_examples=25)
@given(st.lists(CALLS, min_size=2, max_size=30), st.booleans())
def test_no_answer_ever_crosses_tenants_lists_or_models(calls: list[Call], at_once: bool) -> None:
    async def answer(call: Call) -> GatewayReply:
        async def pieces() -> AsyncGenerator[bytes, None]:
            await asyncio.sleep(0)
            yield repr(_partition(call)).encode()

        return GatewayReply(200, {}, pieces=pieces())

    async def check() -> None:
        case = Case()
        case.calls._run = answer

        async def ask(call: Call) -> None:
            try:
                assert await case.ask(call) == repr(_partition(call)).encode()
            except InvalidRequest:
                assert call.idempotency_key is not None

        if at_once:
            await asyncio.gather(*(ask(call) for call in calls))
        else:
            for call in calls:
                await ask(call)

    asyncio.run(check())


def _partition(call: Call) -> tuple[Any, ...]:
    """What decides an answer; with an idempotency key that is the key's own."""
    access = call.caller.access
    whose = call.caller.key_id if call.idempotency_key else None
    principals = None if access is None or call.idempotency_key else sorted(access.principals)
    tenant = None if call.idempotency_key else call.caller.tenant
    return whose, tenant, principals, call.model, call.body["seed"]

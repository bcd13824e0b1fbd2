"""A relay before model servers, and calls of it, for the gateway's tests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

import pytest

from infra.contracts import Usage
from infra.errors import EngineFailed
from infra.gateway_settings import Gateway
from model_server import Misbehaving
from service.callers import Caller
from service.gateway.calls import Call, Outcome
from service.gateway.meters import Meter, Ticket
from service.gateway.relay import Relay
from service.gateway.reloading import Tables

QUICK = {"first_byte_seconds": 0.5, "silence_seconds": 0.5}
"""Options of an upstream whose servers are soon known to hang."""
HUNG = {"first_byte_seconds": 0.1, "silence_seconds": 0.1}
"""The same where its servers do nothing else."""


class Unmetered:
    """Lets every caller use the models that are its own, without limit or price."""

    def try_admit(self, call: Call, *, prompt_tokens: int, completion_tokens: int) -> Ticket:
        del prompt_tokens, completion_tokens
        call.caller.require_model(call.model)
        return _Free()

    async def admit(self, call: Call, *, prompt_tokens: int, completion_tokens: int) -> Ticket:
        return self.try_admit(
            call, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens
        )


class _Free:
    headers: Mapping[str, str] = {}

    def begin(self) -> None:
        """Nothing is noted."""

    def settle(self, usage: Usage) -> float:
        del usage
        return 0.0

    def waive(self, usage: Usage) -> None:
        """Nothing is counted."""

    def refund(self) -> None:
        """Nothing was taken."""


class Kept:
    """A recorder that remembers."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []

    def record(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)


class Opened:
    """A relay with what stands around it."""

    def __init__(
        self,
        settings: Gateway,
        *,
        meter: Meter | None = None,
        keeps_text: bool = False,
        **more: Any,
    ) -> None:
        self.recorder = Kept()
        self.tables = Tables(settings, **more)
        self.relay = Relay(
            self.tables,
            meter=meter or Unmetered(),
            recorder=self.recorder,
            keeps_text=keeps_text,
        )

    @property
    def outcomes(self) -> list[Outcome]:
        return self.recorder.outcomes

    @property
    def breakers(self) -> list[str]:
        return [state.breaker for state in self.tables.current.snapshot()]

    @property
    def is_idle(self) -> bool:
        """Nothing runs, nothing waits: every place was given back."""
        return all(s.running == s.waiting == 0 for s in self.tables.current.snapshot())


@asynccontextmanager
async def opened(settings: Gateway, **more: Any) -> AsyncIterator[Opened]:
    found = Opened(settings, **more)
    try:
        yield found
    finally:
        await found.relay.close()
        await found.tables.close()


def call(model: str = "m", *, stream: bool = False, seconds: float = 10.0, **more: Any) -> Call:
    """A call of a chat model; what is given by name is put in its body."""
    fields = {name: more.pop(name) for name in ("user", "target", "path") if name in more}
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], **more}
    if stream:
        body["stream"] = True
    return Call(
        request_id="req_1",
        caller=Caller(),
        path=fields.pop("path", "/v1/chat/completions"),
        model=model,
        body=body,
        deadline=time.monotonic() + seconds,
        **fields,
    )


async def answer(relay: Relay, asked: Call) -> bytes:
    """Return the whole body of the answer to a call."""
    reply = await relay.run(asked)
    return b"".join([piece async for piece in reply.pieces])


async def fail_thrice(gate: Opened, *, stream: bool = False) -> None:
    """Ask until a breaker that bears three failures is open, and nobody is asked any more."""
    for state in ("closed", "closed", "open"):
        with suppress(EngineFailed):  # what broke midway has its error in the stream
            await answer(gate.relay, call(stream=stream))
        assert gate.breakers == [state]
    with pytest.raises(EngineFailed, match="is well"):
        await answer(gate.relay, call(stream=stream))


async def until(holds: Callable[[], bool], *, seconds: float = 30.0) -> float:
    """Wait until something holds, while others run; returns how long it took, in seconds."""
    start = time.monotonic()
    while not holds():
        assert time.monotonic() - start < seconds, "it did not come to hold in time"
        await asyncio.sleep(0.005)
    return time.monotonic() - start


def outcome_of(settings: Gateway, asked: Call, *, keeps_text: bool = True) -> Outcome:
    """Return how a call ended that was read to its end."""

    async def ask() -> Outcome:
        async with opened(settings, keeps_text=keeps_text) as found:
            await answer(found.relay, asked)
            (outcome,) = found.outcomes
            return outcome

    return asyncio.run(ask())


class Leaping(asyncio.SelectorEventLoop):
    """A loop whose clock can be put forward: what waits by it waits no longer."""

    ahead_seconds = 0.0

    def time(self) -> float:
        return super().time() + self.ahead_seconds


def leap(seconds: float) -> None:
    """Put the clock of the running loop, a `Leaping` one, forward."""
    cast("Leaping", asyncio.get_running_loop()).ahead_seconds += seconds


def run(
    work: Coroutine[Any, Any, Any], *, on: Callable[[], asyncio.AbstractEventLoop] | None = None
) -> Any:
    """Run to the end, on a loop of asyncio's choice or on one made by `on`."""
    with asyncio.Runner(loop_factory=on) as runner:
        return runner.run(work)


def gateway(*servers: Misbehaving, route: dict[str, Any] | None = None, **options: Any) -> Gateway:
    """Settings with one route `m` to one upstream `u` of these servers."""
    quick = {"first_byte_seconds": 10, "silence_seconds": 10, "connect_seconds": 5}
    upstream = {"urls": [server.url for server in servers], **quick, **options}
    targets = [{"upstream": "u", "model": "tiny"}]
    return Gateway.model_validate(
        {"upstreams": {"u": upstream}, "routes": {"m": {"targets": targets, **(route or {})}}}
    )

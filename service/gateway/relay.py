"""The path of one call: admit, choose, send, relay, settle, record."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from infra.contracts import Usage
from infra.errors import (
    EngineTimedOut,
    InvalidRequest,
    RagstoneError,
)
from service.errors import describe
from service.gateway import estimate
from service.gateway.calls import Call, Meter, Outcome, Recorder, Ticket
from service.gateway.reloading import Tables
from service.gateway.routing import Route, Target
from service.gateway.sending import Begun, Sender, send_aside
from service.gateway.stream import LEFT, Stream

logger = logging.getLogger(__name__)

MAX_SHADOWS = 32
"""Copies under way at a time; those beyond are left out."""


class Pieces(Protocol):
    """The body of a stream: read to its end, or closed."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def __anext__(self) -> bytes: ...

    async def aclose(self) -> None: ...


@dataclass(slots=True)
class Answered:
    """The answer to a call: whole in `body`, or a stream; the latter must be read or closed."""

    status: int
    headers: dict[str, str]
    body: bytes | None = None
    outcome: Outcome | None = None
    stream: Pieces | None = field(default=None, repr=False)

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Yield the body, whole or as it arrives; closing this stops the server's work.

        A server that breaks off midway ends the stream with an event that holds the error.
        """
        if self.stream is None:
            yield self.body or b""
            return
        try:
            async for piece in self.stream:
                yield piece
        finally:
            await self.stream.aclose()

    async def close(self) -> None:
        """Stop the work, if it has not ended."""
        if self.stream is not None:
            await self.stream.aclose()


class Relay:
    """Answers calls of models, from HTTP and from within."""

    def __init__(self, tables: Tables, *, meter: Meter, recorder: Recorder) -> None:
        self._tables = tables
        self._meter = meter
        self._recorder = recorder
        self._sender = Sender()
        self._shadows: set[asyncio.Task[None]] = set()

    async def run(self, call: Call) -> Answered:
        """Answer a call; returns when a stream's first events are here, or the whole answer.

        Cancelling this, or closing the stream, stops the work at the server.

        Raises:
            NotFound: no such model, or not for this caller.
            InvalidRequest: it asks for more than the model can.
            RateLimited: the caller has used up a limit, or its budget.
            Overloaded: every place is taken.
            EngineFailed: no server answered; EngineTimedOut: not in time.
        """
        outcome = Outcome(call, status=200, started=time.monotonic())
        ticket: Ticket | None = None
        try:
            table = self._tables.current
            route = table.find(call.model)
            prompt = estimate.prompt_tokens(call.body)
            completion = _completion_tokens(call, route, prompt)
            ticket = self._meter.admit(call, prompt_tokens=prompt, completion_tokens=completion)
            if route.shadow:
                self._send_shadows(call, route)
            async with asyncio.timeout(call.deadline - time.monotonic()):
                begun = await self._sender.begin(call, table, outcome)
        except TimeoutError as error:
            late = EngineTimedOut("The deadline passed before an answer began")
            self._fail(outcome, late, ticket)
            raise late from error
        except RagstoneError as error:
            self._fail(outcome, error, ticket)
            raise
        except asyncio.CancelledError:
            # What the server did until now is not known; at least it was given the prompt.
            outcome.status = LEFT
            outcome.usage = Usage(prompt if outcome.attempts and ticket else 0, 0)
            self._settle(outcome, ticket)
            raise
        return self._relay(begun, outcome, ticket, prompt)

    complete = run

    def _relay(self, begun: Begun, outcome: Outcome, ticket: Ticket, prompt: int) -> Answered:
        headers = {**ticket.headers, "x-ragstone-target": begun.target.tag}
        if begun.whole is None:
            stream = Stream(
                begun, outcome, prompt=prompt, end=lambda ended: self._settle(ended, ticket)
            )
            return Answered(200, headers, outcome=outcome, stream=stream)
        begun.end()
        whole = begun.whole
        outcome.status = whole.status
        outcome.first_byte = time.monotonic()
        outcome.finish_reason = whole.finish_reason
        outcome.cached_tokens = whole.cached_tokens
        if whole.status == 200:
            outcome.usage = whole.usage or Usage(prompt, 0)
            self._settle(outcome, ticket)
        else:
            outcome.error = "invalid_request"
            ticket.refund()
            self._end(outcome)
        return Answered(whole.status, headers, whole.body, outcome)

    def _fail(self, outcome: Outcome, error: RagstoneError, ticket: Ticket | None) -> None:
        failure = describe(error)
        outcome.status, outcome.error = failure.status, failure.code
        if ticket is not None:
            ticket.refund()
        self._end(outcome)

    def _settle(self, outcome: Outcome, ticket: Ticket | None) -> None:
        if ticket is not None:
            outcome.cost = ticket.settle(outcome.usage)
        self._end(outcome)

    def _end(self, outcome: Outcome) -> None:
        outcome.ended = time.monotonic()
        self._recorder.record(outcome)

    def _send_shadows(self, call: Call, route: Route) -> None:
        for target in route.shadow:
            if len(self._shadows) >= MAX_SHADOWS:
                logger.info("a copy for %r is left out: too many are under way", target.tag)
                return
            task = asyncio.create_task(self._shadow(call, target))
            self._shadows.add(task)
            task.add_done_callback(self._shadows.discard)

    async def _shadow(self, call: Call, target: Target) -> None:
        """Have a copy answered, for the record alone: nothing of it is charged or returned."""
        outcome = Outcome(call, status=200, started=time.monotonic(), upstream=target.upstream.name)
        outcome.tag = target.tag
        try:
            async with asyncio.timeout(call.deadline - time.monotonic()):
                await send_aside(call, target, outcome)
        except TimeoutError:
            outcome.status, outcome.error = 504, "engine_timeout"
        except RagstoneError as error:
            failure = describe(error)
            outcome.status, outcome.error = failure.status, failure.code
        self._end(outcome)

    async def close(self) -> None:
        """Give up the copies under way."""
        for task in self._shadows:
            task.cancel()
        await asyncio.gather(*self._shadows, return_exceptions=True)


class Unmetered:
    """Lets every caller use the models that are its own, without limit or price."""

    def admit(self, call: Call, *, prompt_tokens: int, completion_tokens: int) -> Ticket:
        del prompt_tokens, completion_tokens
        call.caller.require_model(call.model)
        return _Free()


class _Free:
    headers: Mapping[str, str] = {}

    def settle(self, usage: Usage) -> float:
        del usage
        return 0.0

    def refund(self) -> None:
        """Nothing was taken."""


class Unrecorded:
    """Takes no note."""

    def record(self, outcome: Outcome) -> None:
        del outcome


def _completion_tokens(call: Call, route: Route, prompt: int) -> int:
    """Return how long the answer may be at most.

    Raises:
        InvalidRequest: prompt and answer together exceed what the model reads and writes.
    """
    context = route.settings.context_tokens
    tokens = estimate.completion_tokens(call.body, prompt=prompt, context=context)
    if context is not None:
        asked = tokens // int(call.body.get("n") or 1) + estimate.fewest_tokens(prompt)
        if asked > context:
            raise InvalidRequest(
                f"{route.name!r} reads and writes {context:,} tokens in one request; the messages "
                f"and the answer asked for take at least {asked:,}",
                parameter="messages" if "messages" in call.body else None,
            )
    return tokens

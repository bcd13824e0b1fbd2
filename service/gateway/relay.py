"""The path of one call: admit, choose, send, relay, settle, record."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import aclosing

from infra.contracts import Usage
from infra.errors import (
    EngineTimedOut,
    InvalidRequest,
    RagstoneError,
)
from service.engines import Reply
from service.errors import describe
from service.gateway import estimate
from service.gateway.calls import Call, Outcome, Recorder
from service.gateway.longest import Longest, longest_answers
from service.gateway.meters import Meter, Ticket
from service.gateway.reloading import Tables
from service.gateway.replies import GatewayReply, whole
from service.gateway.routing import Route, Target
from service.gateway.sending import Begun, Sender, send_aside
from service.gateway.stream import LEFT, Stream

logger = logging.getLogger(__name__)

MAX_SHADOWS = 32
"""Copies under way at a time; those beyond are left out."""


class Relay:
    """Answers calls of models, from HTTP and from within."""

    def __init__(self, tables: Tables, *, meter: Meter, recorder: Recorder) -> None:
        self._tables = tables
        self._meter = meter
        self._recorder = recorder
        self._sender = Sender()
        self._shadows: set[asyncio.Task[None]] = set()

    async def run(self, call: Call) -> GatewayReply:
        """Answer a call; returns when a stream's first events are here, or the whole answer.

        Cancelling this, or closing the pieces, stops the work at the server. A server that breaks
        off midway ends the stream with an event that holds the error.

        Raises:
            NotFound: no such model, or not for this caller.
            InvalidRequest: it asks for more than the model can.
            RateLimited: the caller has used up a limit, or its budget.
            Overloaded: every place is taken.
            EngineFailed: no server answered; EngineTimedOut: not in time.
        """
        outcome = Outcome(call, status=200, started=time.monotonic(), attempts=0)
        ticket: Ticket | None = None
        prompt = 0
        try:
            table = self._tables.current
            route = table.find(call.model)
            prompt = estimate.prompt_tokens(call.body)
            call.longest = _longest(call, route, prompt)
            completion = call.longest.total
            ticket = self._meter.try_admit(call, prompt_tokens=prompt, completion_tokens=completion)
            async with asyncio.timeout(call.deadline - time.monotonic()):
                if ticket is None:
                    ticket = await self._meter.admit(
                        call, prompt_tokens=prompt, completion_tokens=completion
                    )
                if route.shadow:
                    self._send_shadows(call, route)
                begun = await self._sender.begin(call, table, outcome)
        except TimeoutError as error:
            # The caller says how long it waits, and the server read the prompt meanwhile.
            late = EngineTimedOut("The deadline passed before an answer began")
            self._fail(outcome, late)
            self._charge_prompt(outcome, ticket, prompt)
            raise late from error
        except RagstoneError as error:
            self._fail(outcome, error)
            self._waive(outcome, ticket, prompt)
            self._end(outcome)
            raise
        except asyncio.CancelledError:
            outcome.status = LEFT
            self._charge_prompt(outcome, ticket, prompt)
            raise
        except BaseException:  # a fault of ours: the log tells, nobody pays
            self._waive(outcome, ticket, prompt)
            raise
        return self._relay(begun, outcome, ticket, estimate.likely_tokens(prompt))

    async def complete(self, call: Call) -> Reply:
        """Answer a call from within; the same as `run`, in the form of a server's reply."""
        return _Inner(await self.run(call))

    def _relay(self, begun: Begun, outcome: Outcome, ticket: Ticket, prompt: int) -> GatewayReply:
        """Return what has begun; `prompt` is about how many tokens the prompt has."""
        headers = {**ticket.headers, "x-ragstone-target": begun.target.tag}
        if begun.whole is None:
            stream = Stream(
                begun, outcome, prompt=prompt, end=lambda ended: self._settle(ended, ticket)
            )
            headers["content-type"] = "text/event-stream; charset=utf-8"
            return GatewayReply(200, headers, stream, outcome)
        begun.end()
        answer = begun.whole
        outcome.status = answer.status
        outcome.first_byte = time.monotonic()
        outcome.finish_reason = answer.finish_reason
        outcome.cached_tokens = answer.cached_tokens
        if answer.status == 200:
            outcome.usage = answer.usage or Usage(prompt, 0)
            self._settle(outcome, ticket)
        else:
            outcome.error = "invalid_request"
            ticket.waive(Usage(prompt, 0))
            self._end(outcome)
        headers["content-type"] = "application/json"
        headers["content-length"] = str(len(answer.body))
        return GatewayReply(answer.status, headers, whole(answer.body), outcome)

    def _fail(self, outcome: Outcome, error: RagstoneError) -> None:
        failure = describe(error)
        outcome.status, outcome.error = failure.status, failure.code

    def _charge_prompt(self, outcome: Outcome, ticket: Ticket | None, prompt: int) -> None:
        """Charge what a server read at least, if one was asked; it counts as a request anyway."""
        if outcome.attempts:
            outcome.usage = Usage(estimate.likely_tokens(prompt), 0)
        self._settle(outcome, ticket)

    def _waive(self, outcome: Outcome, ticket: Ticket | None, prompt: int) -> None:
        """Charge nothing; what was sent counts against limits, or it could be repeated for ever."""
        if ticket is None:
            return
        if outcome.attempts:
            ticket.waive(Usage(estimate.likely_tokens(prompt), 0))
        else:
            ticket.refund()

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
            self._fail(outcome, error)
        self._end(outcome)

    async def close(self) -> None:
        """Give up the copies under way."""
        for task in self._shadows:
            task.cancel()
        await asyncio.gather(*self._shadows, return_exceptions=True)


class _Inner:
    """A reply as a server gives it."""

    def __init__(self, reply: GatewayReply) -> None:
        self._reply = reply
        self.status = reply.status
        self.headers = reply.headers

    async def pieces(self) -> AsyncIterator[bytes]:
        async with aclosing(self._reply.pieces) as pieces:
            async for piece in pieces:
                yield piece

    async def close(self) -> None:
        await self._reply.pieces.aclose()


def _longest(call: Call, route: Route, prompt: int) -> Longest:
    """Return how long the answers may be at most.

    Raises:
        InvalidRequest: prompt and answer together exceed what the model reads and writes.
    """
    context = route.settings.context_tokens
    longest = longest_answers(call.path, call.body, prompt=prompt, context=context)
    if context is not None and longest.least > context:
        raise InvalidRequest(
            f"{route.name!r} reads and writes {context:,} tokens in one request; the messages "
            f"and the answer asked for take at least {longest.least:,}",
            parameter="messages" if "messages" in call.body else None,
        )
    return longest

"""The path of one call: admit, choose, send, relay, settle, record."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from dataclasses import replace
from functools import partial

from infra.contracts import Usage
from infra.errors import EngineTimedOut, InvalidRequest, RagstoneError
from service.errors import describe
from service.gateway import estimate
from service.gateway.attempts import Begun
from service.gateway.calls import LEFT, TARGET_HEADER, Call, Outcome, Recorder
from service.gateway.longest import Longest, longest_answers
from service.gateway.meters import Meter, Ticket
from service.gateway.reloading import Tables
from service.gateway.replies import GatewayReply, whole
from service.gateway.routing import Route, Table, Target
from service.gateway.sending import Sender, send_aside
from service.gateway.stream import Stream
from service.gateway.transcripts import SPOKEN, Transcript

logger = logging.getLogger(__name__)

MAX_SHADOWS = 32
"""Copies under way at a time; those beyond are left out."""


class Relay:
    """Answers calls of models, from HTTP and from within."""

    def __init__(
        self, tables: Tables, *, meter: Meter, recorder: Recorder, keeps_text: bool = False
    ) -> None:
        """Take the parts; with `keeps_text` the recorder is told what models say."""
        self._tables = tables
        self._meter = meter
        self._recorder = recorder
        self._keeps_text = keeps_text
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
        outcome = self._begin(call)
        outcome.attempts = 0
        ticket: Ticket | None = None
        prompt = 0
        table = self._tables.current
        table.users += 1
        try:
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
                note = partial(self._note, outcome, ticket, table, estimate.likely_tokens(prompt))
                begun = await self._sender.begin(call, table, outcome, note=note)
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
        finally:
            table.users -= 1
        return self._relay(begun, outcome, ticket, estimate.likely_tokens(prompt))

    def _note(self, outcome: Outcome, ticket: Ticket, table: Table, prompt: int) -> None:
        """Note what the call may cost, before it is sent; its copies go with the first attempt.

        Raises:
            StorageFailed: it cannot be noted, so nothing must be sent.
        """
        ticket.begin()
        if not outcome.attempts and table.find(outcome.call.model).shadow:
            self._send_shadows(outcome.call, table, prompt)

    def _begin(self, call: Call) -> Outcome:
        is_kept = self._keeps_text and call.path in SPOKEN
        transcript = Transcript() if is_kept else None
        return Outcome(call, status=200, started=time.monotonic(), transcript=transcript)

    def _relay(
        self, begun: Begun, outcome: Outcome, ticket: Ticket | None, prompt: int
    ) -> GatewayReply:
        """Return what has begun; `prompt` is about how many tokens the prompt has."""
        headers = {**(ticket.headers if ticket else {}), TARGET_HEADER: begun.target.tag}
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
            if outcome.transcript is not None:
                outcome.transcript.add_body(answer.body)
            outcome.usage = answer.usage or Usage(prompt, 0)
            self._settle(outcome, ticket)
        else:
            outcome.error = "invalid_request"
            if ticket is not None:
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

    def _send_shadows(self, call: Call, table: Table, prompt: int) -> None:
        def end(task: asyncio.Task[None]) -> None:
            self._shadows.discard(task)
            table.users -= 1

        for target in table.find(call.model).shadow:
            if random.random() >= target.weight:
                continue
            if len(self._shadows) >= MAX_SHADOWS:
                logger.info("a copy for %r is left out: too many are under way", target.tag)
                return
            # What was not in memory is counted for the call itself.
            copy = replace(call, was_looked_up=False)
            task = asyncio.create_task(self._shadow(copy, target, prompt))
            self._shadows.add(task)
            table.users += 1
            task.add_done_callback(end)

    async def _shadow(self, call: Call, target: Target, prompt: int) -> None:
        """Have a copy answered, for the record alone: nothing of it is charged or returned."""
        outcome = self._begin(call)
        outcome.upstream, outcome.tag = target.upstream.name, target.tag
        outcome.is_copy = True
        try:
            async with asyncio.timeout(call.deadline - time.monotonic()):
                begun = await send_aside(call, target)
        except TimeoutError:
            self._fail(outcome, EngineTimedOut("The deadline passed before an answer began"))
            self._end(outcome)
        except RagstoneError as error:
            self._fail(outcome, error)
            self._end(outcome)
        else:
            outcome.served = begun.model
            reply = self._relay(begun, outcome, None, prompt)
            async for _ in reply.pieces:
                pass

    async def close(self) -> None:
        """Give up the copies under way."""
        for task in self._shadows:
            task.cancel()
        await asyncio.gather(*self._shadows, return_exceptions=True)


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

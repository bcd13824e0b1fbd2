"""Answers from memory: identical deterministic calls are asked once, repeated requests replayed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import TypeAlias

from infra.contracts import Usage
from infra.errors import EngineFailed, EngineTimedOut, Overloaded, RagstoneError
from infra.gateway_settings import Gateway
from service.errors import describe
from service.gateway.calls import LEFT, Call, Outcome, Recorder, Source
from service.gateway.memory import CACHE_HEADER, LEAST_BYTES, Memory, Terms, digest, named
from service.gateway.meters import Meter, Ticket
from service.gateway.replaying import Reader
from service.gateway.replies import GatewayReply
from service.gateway.routing import Variant
from service.gateway.sharing import Fingerprint, SharedAnswer, Span

Run: TypeAlias = Callable[[Call], Awaitable[GatewayReply]]
WITHOUT_MEANING = frozenset({"user", "metadata", "safety_identifier", "prompt_cache_key"})
"""Keys of a body that do not change its answer."""
TIME_SHARE = 0.9
"""Who was given much less time than another may fail where the other would not."""
ALWAYS_THE_SAME = frozenset({"/v1/embeddings", "/v1/rerank"})


class RepeatedCalls:
    """Stands before the relay and answers what was asked before, or is being asked.

    What is kept is kept for the caller's tenant and access list alone, and for one model, adapter
    and set of parameters: `variant` says which of a route's targets the call would meet.
    """

    def __init__(
        self,
        run: Run,
        *,
        settings: Gateway,
        variant: Callable[[Call], Variant | None],
        meter: Meter,
        recorder: Recorder,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the parts.

        Args:
            run: asks a model.
            settings: how much is kept, and for how long.
            variant: what beside the request decides the answer; None forbids to keep it.
            meter: calls reply from memory count as requests, and cost nothing.
            recorder: learns of them, too.
            clock: seconds from any fixed moment, never backwards.
        """
        self._run = run
        self._variant = variant
        self._meter = meter
        self._recorder = recorder
        self._clock = clock
        self._kept, self._named = (
            Memory(most_bytes=most_bytes, seconds=seconds, clock=clock)
            for most_bytes, seconds in _bounds(settings)
        )

    async def run(self, call: Call) -> GatewayReply:
        """Answer a call: from memory, together with an identical one, or by asking the model.

        Raises:
            InvalidRequest: the call's idempotency key was used for another request.
        """
        asked = self._asked(call)
        if asked is None:
            return await self._run(call)
        while (found := self._find(call, asked)) is not None:
            if (reply := await self._known(call, *found)) is not None:
                return reply
        call.was_looked_up = asked.variant is not None
        return await self._ask(call, asked).join()

    def adopt(self, settings: Gateway) -> None:
        """Go by other bounds from now on; each answer's time is counted from when it was given."""
        for memory, (most_bytes, seconds) in zip(
            (self._kept, self._named), _bounds(settings), strict=True
        ):
            memory.adopt(most_bytes=most_bytes, seconds=seconds)

    def documents(self) -> set[str]:
        """Return the public ids of those that what is kept may quote, of any thread."""
        return self._kept.documents() | self._named.documents()

    def forget(self, documents: Collection[str]) -> int:
        """Drop what may quote one of these, of any thread; returns how many answers."""
        return sum(memory.forget(documents) for memory in (self._kept, self._named))

    def _asked(self, call: Call) -> _Asked | None:
        """Return what a call is known by; None where it is not to be answered from memory."""
        quotes = bool(call.documents)
        if call.idempotency_key is not None:
            whose = [call.caller.key_id, call.path]
            return _Asked(named(call.idempotency_key, call.body, whose=whose, may_quote=quotes))
        variant = self._variant(call) if _is_deterministic(call) else None
        if variant is None:
            return None
        key, size = digest(_fingerprint(call, variant))
        return _Asked(Fingerprint(key, key, size, may_quote=quotes), variant)

    def _find(self, call: Call, asked: _Asked) -> tuple[SharedAnswer, Source] | None:
        """Return an answer that may be a call's, and how."""
        if asked.variant is None:
            found = self._named.find(asked.fingerprint)
            return None if found is None else (found, "replayed")
        found = self._kept.find(asked.fingerprint)
        if found is None:
            return None
        if found.has_ended:
            return found, "cache"
        is_for_long = found.given.seconds >= TIME_SHARE * (call.deadline - self._clock())
        return (found, "shared") if is_for_long else None

    async def _known(self, call: Call, found: SharedAnswer, how: Source) -> GatewayReply | None:
        """Answer from what is known; None where that failed for a reason of who asked first."""
        outcome = Outcome(call, status=200, source=how, started=self._clock(), attempts=0)
        none = {"prompt_tokens": 0, "completion_tokens": 0}
        ticket: Ticket | None = None
        try:
            async with asyncio.timeout(call.deadline - self._clock()):
                ticket = self._meter.try_admit(call, **none) or await self._meter.admit(
                    call, **none
                )
                reply = await found.join(self._reader(outcome, found, ticket))
            outcome.first_byte = self._clock()
            ticket.settle(Usage())
            return reply
        except TimeoutError as error:
            late = EngineTimedOut("The deadline passed before an answer began")
            self._end(outcome, late)
            raise late from error
        except (RagstoneError, asyncio.CancelledError) as error:
            if error is found.error and not self._is_shared(found):
                return None
            self._end(outcome, error)
            raise
        finally:
            if ticket is not None:
                ticket.refund()

    def _reader(self, outcome: Outcome, found: SharedAnswer, ticket: Ticket) -> Reader:
        def ended(error: BaseException | None) -> None:
            outcome.status = found.status
            first = found.reply.outcome if found.reply is not None else None
            if first is not None:
                outcome.tag, outcome.served = first.tag, first.served
                if error is None:
                    outcome.status, outcome.error = first.status, first.error
                    outcome.finish_reason = first.finish_reason
                    outcome.transcript = first.transcript
            self._end(outcome, error)

        return Reader(
            outcome,
            {**ticket.headers, CACHE_HEADER: outcome.source},
            left=lambda: outcome.call.deadline - self._clock(),
            ended=ended,
        )

    def _is_shared(self, found: SharedAnswer) -> bool:
        """Whether a failure is everybody's: the servers', within the time that they had."""
        is_servers = isinstance(found.error, EngineFailed | Overloaded)
        return is_servers and self._clock() < found.given.deadline

    def _end(self, outcome: Outcome, error: BaseException | None) -> None:
        if isinstance(error, asyncio.CancelledError):
            outcome.status = LEFT
        elif isinstance(error, Exception):
            failure = describe(error)
            outcome.status, outcome.error = failure.status, failure.code
        outcome.ended = self._clock()
        self._recorder.record(outcome)

    def _ask(self, call: Call, asked: _Asked) -> SharedAnswer:
        """Ask the model; the work for an idempotency key goes on if the caller leaves."""
        variant = asked.variant

        def is_final(answer: SharedAnswer) -> bool:
            if variant is None:
                # A client that asks again is told the same, also that it was wrong.
                return answer.status < 500 and answer.status not in {408, 429}
            return answer.status == 200 and _is_of(variant, answer.reply)

        given = Span(self._clock(), call.deadline)
        memory = self._named if variant is None else self._kept
        terms = Terms(
            given,
            outlives=variant is None,
            is_final=is_final,
            documents=lambda: call.documents,
        )
        return memory.begin(asked.fingerprint, lambda: self._run(call), terms)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a call is known by."""

    fingerprint: Fingerprint
    variant: Variant | None = None
    """Where it would go; None if it is known by its idempotency key."""


def _is_of(variant: Variant, reply: GatewayReply | None) -> bool:
    """Whether an answer comes from where it was looked for: no fallback, no newer adapter."""
    outcome = None if reply is None else reply.outcome
    if outcome is None:
        return True
    came_from = (outcome.upstream, outcome.served, outcome.tag)
    return came_from == (variant.upstream, variant.model, variant.tag)


def _is_deterministic(call: Call) -> bool:
    if call.path in ALWAYS_THE_SAME:
        return True
    body = call.body
    has_one_answer = body.get("temperature") == 0 or body.get("seed") is not None
    return has_one_answer and not body.get("store")


def _fingerprint(call: Call, variant: Variant) -> list[object]:
    access = call.caller.access
    principals = [] if access is None else sorted(access.principals)
    asked = {name: part for name, part in call.body.items() if name not in WITHOUT_MEANING}
    where = [variant.upstream, variant.model, variant.tag, variant.opening]
    return [call.caller.tenant, principals, call.path, call.model, where, asked]


def _bounds(settings: Gateway) -> tuple[tuple[int, float], tuple[int, float]]:
    """Return how many bytes are kept for how long: without an idempotency key, and with one."""
    least = max(settings.cache_bytes, LEAST_BYTES)
    return (
        (settings.cache_bytes, settings.cache_seconds),
        (least, settings.idempotency_seconds),
    )

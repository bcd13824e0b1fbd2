"""Answers from memory: identical deterministic calls are asked once, repeated requests replayed."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import orjson
from cachetools import TTLCache

from infra.contracts import Usage
from infra.errors import EngineFailed, EngineTimedOut, InvalidRequest, Overloaded, RagstoneError
from infra.gateway_settings import Gateway
from service.errors import describe
from service.gateway.calls import LEFT, Call, Outcome, Recorder, Source
from service.gateway.meters import Meter, Ticket
from service.gateway.replaying import Reader
from service.gateway.replies import GatewayReply
from service.gateway.routing import Variant
from service.gateway.sharing import SharedAnswer, Span

Run: TypeAlias = Callable[[Call], Awaitable[GatewayReply]]
CACHE_HEADER = "x-ragstone-cache"
MAX_KEY_CHARACTERS = 255
LARGEST_SHARE = 16
"""An answer over a sixteenth of the cache is not kept: it would push out too many others."""
LEAST_BYTES = 16 * 2**20
"""For answers with an idempotency key, also where nothing else is kept."""
OVERHEAD_BYTES = 1024
"""Of an entry beside its body."""
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
        self._settings = settings
        self._kept, self._named = self._empty()
        self._forgotten = 0
        """How often everything was dropped."""
        self._under_way: dict[bytes, SharedAnswer] = {}

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
        """Go by other bounds from now on.

        Whoever repeats an idempotency key is told the same as before: those answers are kept.
        """
        before, self._settings = self._settings, settings
        if _bounds(before) == _bounds(settings):
            return
        named = self._named
        self._kept, self._named = self._empty()
        for key, answer in list(named.items()):
            _keep(self._named, key, answer)

    def forget(self) -> int:
        """Drop every answer, those under way too once they have ended; returns how many."""
        count = len(self._kept) + len(self._named)
        self._kept, self._named = self._empty()
        self._forgotten += 1
        return count

    @property
    def _largest(self) -> int:
        return max(self._settings.cache_bytes, LEAST_BYTES) // LARGEST_SHARE

    def _empty(self) -> tuple[TTLCache[bytes, SharedAnswer], TTLCache[bytes, SharedAnswer]]:
        settings, clock = self._settings, self._clock
        least = max(settings.cache_bytes, LEAST_BYTES)
        return (
            _bounded(settings.cache_bytes, settings.cache_seconds, clock),
            _bounded(least, settings.idempotency_seconds, clock),
        )

    def _asked(self, call: Call) -> _Asked | None:
        """Return what a call is known by; None where it is not to be answered from memory."""
        name = call.idempotency_key
        if name is not None:
            if not 0 < len(name) <= MAX_KEY_CHARACTERS:
                raise InvalidRequest(
                    f"Idempotency-Key has {len(name)} characters; send 1 to {MAX_KEY_CHARACTERS}",
                    parameter="Idempotency-Key",
                )
            return _Asked(_digest([call.caller.key_id, call.path, name]), _digest(call.body))
        variant = self._variant(call) if _is_deterministic(call) else None
        if variant is None:
            return None
        key = _fingerprint(call, variant)
        return _Asked(key, key, variant)

    def _find(self, call: Call, asked: _Asked) -> tuple[SharedAnswer, Source] | None:
        """Return an answer that may be a call's, and how."""
        is_named = asked.variant is None
        found = (self._named if is_named else self._kept).get(asked.key)
        how: Source = "replayed" if is_named else "cache"
        if found is None:
            found = self._under_way.get(asked.key)
            if found is None or not found.is_open:
                return None
            if not is_named:
                if found.given.seconds < TIME_SHARE * (call.deadline - self._clock()):
                    return None
                how = "shared"
        if found.request != asked.request:
            raise InvalidRequest(
                f"Idempotency-Key {call.idempotency_key!r} was used for another request; "
                "choose a new one",
                parameter="Idempotency-Key",
            )
        return found, how

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
        kept, forgotten = self._kept, self._forgotten  # it goes where it was asked for, or nowhere
        key, variant = asked.key, asked.variant

        def finished(answer: SharedAnswer) -> None:
            if self._under_way.get(key) is answer:
                del self._under_way[key]
            if answer.is_complete and answer.size + OVERHEAD_BYTES <= self._largest:
                if variant is None:
                    # A client that asks again is told the same, also that it was wrong.
                    is_final = answer.status < 500 and answer.status not in {408, 429}
                    if is_final and forgotten == self._forgotten:
                        _keep(self._named, key, answer)
                elif answer.status == 200 and _is_of(variant, answer.reply):
                    _keep(kept, key, answer)

        shared = SharedAnswer(
            lambda: self._run(call),
            request=asked.request,
            given=Span(self._clock(), call.deadline),
            outlives=variant is None,
            finished=finished,
        )
        self._under_way[key] = shared
        return shared


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a call is known by."""

    key: bytes
    request: bytes
    """The digest of what is asked."""
    variant: Variant | None = None
    """Where it would go; None if it is known by its idempotency key."""


def _keep(kept: TTLCache[bytes, SharedAnswer], key: bytes, answer: SharedAnswer) -> None:
    if answer.size + OVERHEAD_BYTES <= kept.maxsize:
        kept[key] = answer


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


def _fingerprint(call: Call, variant: Variant) -> bytes:
    access = call.caller.access
    principals = [] if access is None else sorted(access.principals)
    asked = {name: part for name, part in call.body.items() if name not in WITHOUT_MEANING}
    where = [variant.upstream, variant.model, variant.tag, variant.opening]
    return _digest([call.caller.tenant, principals, call.path, call.model, where, asked])


def _digest(value: Any) -> bytes:
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).digest()


def _bounds(settings: Gateway) -> tuple[float, ...]:
    return settings.cache_bytes, settings.cache_seconds, settings.idempotency_seconds


def _bounded(
    most_bytes: int, seconds: float, clock: Callable[[], float]
) -> TTLCache[bytes, SharedAnswer]:
    return TTLCache(
        most_bytes, seconds, timer=clock, getsizeof=lambda reply: reply.size + OVERHEAD_BYTES
    )

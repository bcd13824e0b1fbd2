"""Answers from memory: identical deterministic calls are asked once, repeated requests replayed."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import orjson
from cachetools import TTLCache

from infra.contracts import Usage
from infra.errors import InvalidRequest
from infra.gateway_settings import Gateway
from service.gateway.calls import Call, Outcome, Recorder, Source
from service.gateway.meters import Meter
from service.gateway.replies import GatewayReply
from service.gateway.routing import Variant
from service.gateway.sharing import SharedAnswer

Run: TypeAlias = Callable[[Call], Awaitable[GatewayReply]]
IDEMPOTENCY = "idempotency-key"
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
        name = call.headers.get(IDEMPOTENCY)
        if name is not None:
            return await self._named_call(call, name)
        variant = self._variant(call) if _is_deterministic(call) else None
        if variant is None:
            return await self._run(call)
        key = _fingerprint(call, variant)
        found = self._kept.get(key)
        if found is not None:
            return await self._known(call, found, "cache")
        found = self._under_way.get(key)
        if found is not None and found.is_open:
            return await self._known(call, found, "shared")
        call.was_looked_up = True
        return await self._ask(call, key, key, variant=variant).join()

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

    async def _named_call(self, call: Call, name: str) -> GatewayReply:
        if not 0 < len(name) <= MAX_KEY_CHARACTERS:
            raise InvalidRequest(
                f"Idempotency-Key has {len(name)} characters; send 1 to {MAX_KEY_CHARACTERS}",
                parameter="Idempotency-Key",
            )
        place = _digest([call.caller.key_id, call.path, name])
        body = _digest(call.body)
        found = self._named.get(place) or self._under_way.get(place)
        if found is None or not found.is_open:
            return await self._ask(call, place, body, variant=None).join()
        if found.request != body:
            raise InvalidRequest(
                f"Idempotency-Key {name!r} was used for another request; choose a new one",
                parameter="Idempotency-Key",
            )
        return await self._known(call, found, "replayed")

    async def _known(self, call: Call, found: SharedAnswer, how: Source) -> GatewayReply:
        started = self._clock()
        none = {"prompt_tokens": 0, "completion_tokens": 0}
        ticket = self._meter.try_admit(call, **none) or await self._meter.admit(call, **none)
        try:
            reply = await found.join({**ticket.headers, CACHE_HEADER: how})
        finally:
            ticket.settle(Usage())
        now = self._clock()
        self._recorder.record(
            Outcome(call, reply.status, source=how, started=started, first_byte=now, ended=now)
        )
        return reply

    def _ask(
        self, call: Call, key: bytes, request: bytes, *, variant: Variant | None
    ) -> SharedAnswer:
        """Ask the model; without a variant it is for a key, and goes on if the caller leaves."""
        kept, forgotten = self._kept, self._forgotten  # it goes where it was asked for, or nowhere

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
            lambda: self._run(call), request=request, outlives=variant is None, finished=finished
        )
        self._under_way[key] = shared
        return shared


def _keep(kept: TTLCache[bytes, SharedAnswer], key: bytes, answer: SharedAnswer) -> None:
    if answer.size + OVERHEAD_BYTES <= kept.maxsize:
        kept[key] = answer


def _is_of(variant: Variant, reply: GatewayReply | None) -> bool:
    """Whether an answer comes from where it was looked for, and from no fallback."""
    outcome = None if reply is None else reply.outcome
    return outcome is None or (outcome.upstream, outcome.tag) == (variant.upstream, variant.tag)


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

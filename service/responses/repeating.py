"""Responses by idempotency key: a request that is sent again gets what the first was told."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, TypeAlias

import orjson
from cachetools import TTLCache

from infra.errors import InvalidRequest
from service.callers import Caller
from service.gateway.cache import (
    CACHE_HEADER,
    LARGEST_SHARE,
    LEAST_BYTES,
    MAX_KEY_CHARACTERS,
    OVERHEAD_BYTES,
)
from service.gateway.opening import IDEMPOTENCY_HEADER
from service.gateway.replies import GatewayReply
from service.gateway.sharing import SAME_FOR_ALL, SharedAnswer, Span

Write: TypeAlias = Callable[[], Awaitable[GatewayReply]]


class RepeatedResponses:
    """Remembers responses for a while, and goes on writing one whose caller was cut off."""

    def __init__(self, *, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Keep each for so long; `clock` gives seconds from any fixed moment."""
        self._known: TTLCache[bytes, SharedAnswer] = TTLCache(
            LEAST_BYTES, seconds, timer=clock, getsizeof=lambda each: each.size + OVERHEAD_BYTES
        )
        self._clock = clock
        self._under_way: dict[bytes, SharedAnswer] = {}
        self._forgotten = 0
        """How often everything was dropped."""

    async def run(
        self,
        key: str,
        request: dict[str, Any],
        write: Write,
        *,
        caller: Caller,
        has_failed: Callable[[], bool],
    ) -> GatewayReply:
        """Return the response to a request, written now or before.

        Args:
            key: the caller's name for the request.
            request: its body.
            write: begins the response.
            caller: whose keys are its own.
            has_failed: whether what `write` began came to nothing, and is to be asked again.

        Raises:
            InvalidRequest: the key was used for another request.
        """
        if not 0 < len(key) <= MAX_KEY_CHARACTERS:
            raise InvalidRequest(
                f"Idempotency-Key has {len(key)} characters; send 1 to {MAX_KEY_CHARACTERS}",
                parameter=IDEMPOTENCY_HEADER,
            )
        place, asked = _digest([caller.key_id, key]), _digest(request)
        found = self._known.get(place) or self._under_way.get(place)
        if found is None or not found.is_open:
            return await self._begin(place, asked, write, has_failed).join()
        if found.request != asked:
            raise InvalidRequest(
                f"Idempotency-Key {key!r} was used for another request; choose a new one",
                parameter=IDEMPOTENCY_HEADER,
            )
        reply = await found.join()
        same = {name: reply.headers[name] for name in SAME_FOR_ALL if name in reply.headers}
        return replace(reply, headers={**same, CACHE_HEADER: "replayed"})

    def forget(self) -> int:
        """Drop every response, those under way too once they have ended; returns how many."""
        count = len(self._known)
        self._known.clear()
        self._forgotten += 1
        return count

    def _begin(
        self, place: bytes, asked: bytes, write: Write, has_failed: Callable[[], bool]
    ) -> SharedAnswer:
        forgotten = self._forgotten

        def finished(answer: SharedAnswer) -> None:
            if self._under_way.get(place) is answer:
                del self._under_way[place]
            is_small = answer.size + OVERHEAD_BYTES <= LEAST_BYTES // LARGEST_SHARE
            is_wanted = forgotten == self._forgotten and not has_failed()
            if answer.is_complete and is_small and is_wanted:
                self._known[place] = answer

        shared = SharedAnswer(
            write,
            request=asked,
            given=Span(self._clock(), math.inf),
            outlives=True,
            finished=finished,
        )
        self._under_way[place] = shared
        return shared


def _digest(value: Any) -> bytes:
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).digest()

"""Responses by idempotency key: a request that is sent again gets what the first was told."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias
from weakref import WeakValueDictionary

from infra.errors import NotFound
from infra.gateway_settings import Gateway
from service.callers import Caller
from service.gateway.memory import CACHE_HEADER, LEAST_BYTES, Memory, Terms, named
from service.gateway.replies import GatewayReply
from service.gateway.sharing import SAME_FOR_ALL, Fingerprint, SharedAnswer, Span
from service.responses.writing import Draft

Write: TypeAlias = Callable[[], Awaitable[GatewayReply]]
PATH = "/v1/responses"


@dataclass(frozen=True, slots=True)
class Repeating:
    """How one request is answered, the first time and again."""

    write: Write
    """Begins the response."""
    admit: Callable[[], Awaitable[Mapping[str, str]]]
    """Counts a request that is told again and costs nothing; returns headers for it, or refuses."""
    check: Callable[[Collection[str]], Awaitable[object]]
    """Raises `NotFound` where one of the documents, or where they are, is not the caller's now."""


class RepeatedResponses:
    """Remembers responses for a while, and goes on writing one whose caller was cut off."""

    def __init__(self, settings: Gateway, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Keep as long as the settings say; `clock` gives seconds, never backwards."""
        self._clock = clock
        self._memory = Memory(
            most_bytes=LEAST_BYTES, seconds=settings.idempotency_seconds, clock=clock
        )
        self._by_id: WeakValueDictionary[str, SharedAnswer] = WeakValueDictionary()

    async def run(
        self,
        key: str,
        request: dict[str, Any],
        draft: Draft,
        repeating: Repeating,
        *,
        caller: Caller,
        may_quote: bool,
    ) -> GatewayReply:
        """Return the response to a request, written now or before.

        Args:
            key: the caller's name for the request.
            request: its body.
            draft: of the response, if it is to be written.
            repeating: how it is written, and how told again.
            caller: whose keys are its own.
            may_quote: whether it may be made of documents.

        Raises:
            InvalidRequest: the key was used for another request.
            RateLimited: it is told again, and the caller has used up a limit.
        """
        asked = named(key, request, whose=[caller.key_id, PATH], may_quote=may_quote)
        while (found := self._memory.find(asked)) is not None:
            if await self._may_be_told(found, repeating):
                limits = await repeating.admit()
                reply = await found.join()
                same = {name: reply.headers[name] for name in SAME_FOR_ALL if name in reply.headers}
                return replace(reply, headers={**same, **limits, CACHE_HEADER: "replayed"})
        return await self._begin(asked, draft, repeating).join()

    def adopt(self, settings: Gateway) -> None:
        """Go by another time from now on; it is counted from when a response was told."""
        self._memory.adopt(most_bytes=LEAST_BYTES, seconds=settings.idempotency_seconds)

    def documents(self) -> set[str]:
        """Return the public ids of those that what is kept may quote, of any thread."""
        return self._memory.documents()

    def forget(self, documents: Collection[str]) -> int:
        """Drop what may quote one of these, of any thread; returns how many responses."""
        return self._memory.forget(documents)

    def drop(self, id_: str) -> None:
        """Forget one response."""
        if (answer := self._by_id.get(id_)) is not None:
            self._memory.drop(answer)

    async def _may_be_told(self, found: SharedAnswer, repeating: Repeating) -> bool:
        """Drop what the caller may not read any more."""
        try:
            await repeating.check(found.documents)
        except NotFound:
            self._memory.drop(found)
            return False
        return True

    def _begin(self, asked: Fingerprint, draft: Draft, repeating: Repeating) -> SharedAnswer:
        terms = Terms(
            Span(self._clock(), math.inf),
            outlives=True,
            is_final=lambda _: bool(draft.response["status"] != "failed"),
            documents=lambda: draft.documents,
        )
        begun = self._memory.begin(asked, repeating.write, terms)
        self._by_id[draft.response["id"]] = begun
        return begun

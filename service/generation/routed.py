"""A route of the gateway as a chat model, asked in one caller's name and at its cost."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeAlias

from infra import telemetry
from infra.errors import EngineFailed
from infra.security import new_id
from service.callers import Caller
from service.deadlines import NEVER, Deadline
from service.gateway import outgoing
from service.gateway.answers import reason_of
from service.gateway.opening import Origin
from service.gateway.within import Within
from service.generation.chat import Message

Count: TypeAlias = Callable[[Sequence[Message]], Awaitable[int | None]]


@dataclass(frozen=True, slots=True)
class Asker:
    """In whose name a model is asked, and for what."""

    caller: Caller
    quoted: Sequence[str] = ()
    """Public ids of the documents that what was said before may quote."""
    deadline: Deadline = NEVER
    """Of the answer."""


class RoutedChat:
    """Sends chats through the gateway, with its checks, limits, fallbacks and records."""

    def __init__(
        self,
        name: str,
        within: Within,
        *,
        asker: Asker,
        count: Count,
        context_tokens: int | None,
    ) -> None:
        """Take what asks.

        Args:
            name: of the route.
            within: the gateway.
            asker: who asks, and pays.
            count: counts the tokens of a chat.
            context_tokens: room for the prompt and the answer together.
        """
        self.name = name
        self.context_tokens = context_tokens
        self._count = count
        self._within = within
        self._asker = asker

    async def complete(
        self, body: Mapping[str, Any], *, documents: Sequence[str] = ()
    ) -> AsyncGenerator[bytes, None]:
        """Yield the event stream of a chat completion; closing it stops the work."""
        asker = self._asker
        # Its own id, not the caller's: one question may take two calls, and each is recorded.
        origin = Origin(
            new_id("req-"),
            outgoing.time_left(asker.deadline.seconds_left),
            parent=telemetry.traceparent.get(),
            documents=(*asker.quoted, *documents),
            keeps_content=False,
        )
        reply = await self._within.chat(dict(body), caller=asker.caller, origin=origin)
        async with aclosing(reply.pieces) as pieces:
            if reply.status != 200:
                reason = await reason_of(pieces)
                raise EngineFailed(f"The route {self.name!r} answered {reply.status}: {reason}")
            async for piece in pieces:
                yield piece

    async def count(self, messages: Sequence[Message]) -> int | None:
        """Ask a server of the route to count; it generates nothing, so it is not charged."""
        return await self._count(messages)

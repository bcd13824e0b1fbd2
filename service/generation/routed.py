"""A route of the gateway as a chat model, asked in one caller's name and at its cost."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, TypeAlias

from infra import telemetry
from infra.errors import EngineFailed
from infra.security import new_id
from service.callers import Caller
from service.gateway.calls import Call
from service.gateway.replies import GatewayReply
from service.generation.chat import Message, refusal

Send: TypeAlias = Callable[[Call], Awaitable[GatewayReply]]
"""The gateway; raises what it raises to callers from outside."""
Count: TypeAlias = Callable[[Sequence[Message]], Awaitable[int | None]]


class RoutedChat:
    """Sends chats through the gateway, with its limits, fallbacks and records."""

    def __init__(
        self,
        name: str,
        send: Send,
        *,
        caller: Caller,
        count: Count,
        context_tokens: int | None,
        deadline_seconds: float,
    ) -> None:
        self.name = name
        self.context_tokens = context_tokens
        self._count = count
        self._send = send
        self._caller = caller
        self._deadline_seconds = deadline_seconds

    async def complete(self, body: Mapping[str, Any]) -> AsyncGenerator[bytes, None]:
        """Yield the event stream of a chat completion; closing it stops the work."""
        parent = telemetry.traceparent.get()
        call = Call(
            # Its own, not the caller's: one question may take two calls, and each is recorded.
            request_id=new_id("req-"),
            caller=self._caller,
            path="/v1/chat/completions",
            model=self.name,
            body=dict(body),
            deadline=time.monotonic() + self._deadline_seconds,
            user=self._caller.key_id,
            headers={"traceparent": parent} if parent else {},
            keeps_content=False,
        )
        reply = await self._send(call)
        async with aclosing(reply.pieces) as pieces:
            if reply.status != 200:
                raise EngineFailed(await refusal(pieces, reply.status, f"route {self.name!r}"))
            async for piece in pieces:
                yield piece

    async def count(self, messages: Sequence[Message]) -> int | None:
        """Ask a server of the route to count; it generates nothing, so it is not charged."""
        return await self._count(messages)

"""A route of the gateway as the target of an evaluation, or the candidate among its targets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from evals.target_kinds import ModelTarget
from evals.trial import Case, Output
from infra.errors import EngineFailed
from infra.security import new_id
from service.callers import Caller
from service.evaluation.targets._chats import body_of, output_of
from service.gateway.answers import reason_of
from service.gateway.calls import Call
from service.gateway.replies import GatewayReply
from service.gateway.within import CHAT

if TYPE_CHECKING:
    from service.wiring import Components


class RoutedAnswers:
    def __init__(self, kind: ModelTarget, parts: Components) -> None:
        self._kind = kind
        self._parts = parts
        route = parts.routes.current.find(kind.model)
        self._deadline_seconds = route.settings.deadline_seconds
        led_to = [each.adapter for each in route.settings.targets if each.adapter is not None]
        found = {each: parts.artifacts.find(each) for each in dict.fromkeys(led_to)}
        self.parents: Sequence[tuple[str, str]] = [
            ("adapter", str(each)) for each in found.values()
        ]
        self._loading: asyncio.Task[None] | None = None
        self.identity: Mapping[str, Any] = {
            **kind.model_dump(mode="json"),
            "route": route.settings.model_dump(mode="json"),
            # What an alias stands for may change.
            "adapters": {name: each.digest for name, each in found.items()},
        }

    async def __call__(self, case: Case, *, seed: int) -> Output:
        if self.parents:
            await self._loaded()
        call = Call(
            request_id=new_id("req-"),
            caller=Caller(),
            path=CHAT,
            model=self._kind.model,
            body=body_of(self._kind, case, seed),
            deadline=time.monotonic() + self._deadline_seconds,
            target=self._kind.tag,
        )
        reply = await self._parts.gateway.run(call)
        output = await output_of(self._kind, self._events(reply))
        return output if reply.outcome is None else replace(output, cost=reply.outcome.cost)

    async def close(self) -> None:
        await self._parts.routes.close()  # their connections belong to this event loop

    async def _loaded(self) -> None:
        """Wait until the adapters are where the route leads; the service, if one runs, is apart."""
        if self._loading is None:
            self._loading = asyncio.create_task(self._parts.adapters.refresh())
        await asyncio.shield(self._loading)  # one case's time limit is not that of the others

    async def _events(self, reply: GatewayReply) -> AsyncGenerator[bytes, None]:
        async with aclosing(reply.pieces) as pieces:
            if reply.status != 200:
                where = f"The route {self._kind.model!r}"
                raise EngineFailed(f"{where} answered {reply.status}: {await reason_of(pieces)}")
            async for piece in pieces:
                yield piece


def build(kind: ModelTarget, parts: Components) -> RoutedAnswers:
    return RoutedAnswers(kind, parts)

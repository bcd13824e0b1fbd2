"""A route of the gateway as the target of an evaluation, or the candidate among its targets."""

from __future__ import annotations

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
from service.eval_targets._chats import body_of, output_of
from service.gateway.answers import reason_of
from service.gateway.calls import Call
from service.gateway.replies import GatewayReply
from service.gateway.within import CHAT

if TYPE_CHECKING:
    from service.wiring import Components


class RoutedAnswers:
    parents: Sequence[tuple[str, str]] = ()

    def __init__(self, kind: ModelTarget, parts: Components) -> None:
        self._kind = kind
        self._parts = parts
        route = parts.routes.current.find(kind.model)
        self._deadline_seconds = route.settings.deadline_seconds
        self.identity: Mapping[str, Any] = {
            **kind.model_dump(mode="json"),
            "route": route.settings.model_dump(mode="json"),
        }

    async def __call__(self, case: Case, *, seed: int) -> Output:
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

    async def _events(self, reply: GatewayReply) -> AsyncGenerator[bytes, None]:
        async with aclosing(reply.pieces) as pieces:
            if reply.status != 200:
                where = f"The route {self._kind.model!r}"
                raise EngineFailed(f"{where} answered {reply.status}: {await reason_of(pieces)}")
            async for piece in pieces:
                yield piece


def build(kind: ModelTarget, parts: Components) -> RoutedAnswers:
    return RoutedAnswers(kind, parts)

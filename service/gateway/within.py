"""Calls of models from within, on behalf of a request that came by another route."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from service.callers import Caller
from service.gateway.calls import Call
from service.gateway.replies import GatewayReply
from service.gateway.routing import Table

CHAT = "/v1/chat/completions"


class Within:
    """Makes calls: limits, budgets, routes and records are those of calls from outside."""

    def __init__(
        self, table: Callable[[], Table], run: Callable[[Call], Awaitable[GatewayReply]]
    ) -> None:
        """`table` has the routes in force, `run` answers a call."""
        self._table = table
        self._run = run

    async def chat(
        self,
        body: dict[str, Any],
        *,
        caller: Caller,
        state: Mapping[str, Any],
        documents: Sequence[str] = (),
    ) -> GatewayReply:
        """Answer the body of a chat completion for `caller`.

        Args:
            body: as a client would send it; `model` is a route.
            caller: whose limits and budget it counts against.
            state: of the request that it is for: its id, and where it stands in a trace.
            documents: public ids of those that the body may quote.

        Raises:
            Forbidden: the caller's key is not for models.
            NotFound: no such model, or not for this caller.
            RagstoneError: as the relay's `run`.
        """
        caller.require("models")
        route = self._table().find(body["model"])
        caller.require_model(route.name)
        parent = state.get("traceparent")
        call = Call(
            request_id=str(state["request_id"]),
            caller=caller,
            path=CHAT,
            model=route.name,
            body=body,
            deadline=time.monotonic() + route.settings.deadline_seconds,
            user=body.get("user") or caller.key_id,
            headers={"traceparent": parent} if parent else {},
            documents=tuple(documents),
        )
        return await self._run(call)

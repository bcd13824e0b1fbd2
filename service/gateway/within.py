"""Calls of models from within, on behalf of a request that came by another route."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from service.callers import Caller
from service.gateway.calls import Call
from service.gateway.opening import Origin, open_call
from service.gateway.replies import GatewayReply
from service.gateway.routing import Table

CHAT = "/v1/chat/completions"


class Within:
    """Makes calls: checks, limits, budgets, routes and records are those of calls from outside."""

    def __init__(
        self, table: Callable[[], Table], run: Callable[[Call], Awaitable[GatewayReply]]
    ) -> None:
        """`table` has the routes in force, `run` answers a call."""
        self._table = table
        self._run = run

    async def chat(self, body: dict[str, Any], *, caller: Caller, origin: Origin) -> GatewayReply:
        """Answer the body of a chat completion for `caller`.

        Args:
            body: as a client would send it; `model` is a route.
            caller: whose limits and budget it counts against.
            origin: the request that it is for.

        Raises:
            RagstoneError: as `open_call`, and as the relay's `run`.
        """
        return await self._run(open_call(self._table(), CHAT, body, caller=caller, origin=origin))

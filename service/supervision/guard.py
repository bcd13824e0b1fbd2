"""Middleware for vLLM: nothing but `/health` is answered without the engine's own key."""

# vLLM's own check leaves out all paths that do not begin with /v1: /invocations runs the model and
# /adapters loads files for anybody on the machine. Copied to a folder of its own and imported
# there, in vLLM's environment: nothing beyond the standard library.
from __future__ import annotations

import hmac
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
OPEN = "/health"
REFUSAL = (
    b'{"error": {"message": "This engine answers the service that started it alone",'
    b' "type": "invalid_request_error", "param": null, "code": "invalid_api_key"}}'
)


class Guard:
    """Asks every request for the Bearer token that the environment holds."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self._app = app
        self._expected = f"Bearer {os.environ['VLLM_API_KEY']}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or (scope["type"] == "http" and scope["path"] == OPEN):
            await self._app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"authorization", b"")
        if hmac.compare_digest(given, self._expected):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            headers = [(b"content-type", b"application/json")]
            await send({"type": "http.response.start", "status": 401, "headers": headers})
            await send({"type": "http.response.body", "body": REFUSAL})
        else:
            await send({"type": "websocket.close", "code": 1008})

"""A request as a server gets it: its own name of the model, the usage asked for, the time left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from infra.errors import InvalidRequest
from service.gateway.calls import Call

TIMEOUT_HEADER = "x-ragstone-timeout-seconds"
"""What is left of the deadline; another Ragstone behind this one keeps it."""


def body(call: Call, model: str) -> bytes:
    """Return the body as the server gets it: its own name of the model, usage always asked for.

    Raises:
        InvalidRequest: the body is nested too deep.
    """
    content: dict[str, Any] = {**call.body, "model": model}
    if call.is_stream:
        content["stream_options"] = {**(content.get("stream_options") or {}), "include_usage": True}
    try:
        return orjson.dumps(content)
    except orjson.JSONEncodeError as error:
        raise InvalidRequest(f"The body cannot be passed on: {error}") from error


def wants_usage(asked: Mapping[str, Any]) -> bool:
    """Whether the caller of a stream asked for the usage."""
    return bool((asked.get("stream_options") or {}).get("include_usage"))


def headers(call: Call, now: float) -> dict[str, str]:
    return {
        **call.headers,
        "x-request-id": call.request_id,
        TIMEOUT_HEADER: f"{call.deadline - now:.3f}",
    }

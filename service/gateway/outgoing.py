"""A request as the server gets it: its own name of the model, and no answer beyond what is paid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias

import orjson

from infra.errors import InvalidRequest
from service.gateway.calls import Call

TIMEOUT_HEADER = "x-ragstone-timeout-seconds"
"""What is left of the deadline; another Ragstone behind this one keeps it."""
NEW_NAME = frozenset({"openai", "azure.ai.openai"})
"""Providers that know the bound as `max_completion_tokens`, and refuse the older name."""
NEW: Final = "max_completion_tokens"
NAMES = ("max_tokens", NEW, "n_predict")
"""Of the bound; the last is llama.cpp's, which goes before the others there."""
Bound: TypeAlias = Literal["usual", "max_completion_tokens", "none"]
"""How a server is told the longest answer."""


def body(call: Call, model: str, *, provider: str = "", bound: Bound = "usual") -> bytes:
    """Return the body as the server gets it: usage is always asked for, answers are bounded.

    Args:
        call: what was asked.
        model: the server's own name of it.
        provider: of the upstream's settings.
        bound: how the longest answer is told: as the provider usually knows it, by the newer name,
            or not at all.

    Raises:
        InvalidRequest: the body is nested too deep.
    """
    content: dict[str, Any] = {**call.body, "model": model}
    longest = call.longest
    if longest is not None and longest.each:
        for name in NAMES:
            content.pop(name, None)
        if bound != "none":
            is_new = provider in NEW_NAME and call.path == "/v1/chat/completions"
            name = NEW if is_new or bound == NEW else "max_tokens"
            content[name] = longest.each
    if call.is_stream:
        content["stream_options"] = {**(content.get("stream_options") or {}), "include_usage": True}
    try:
        return orjson.dumps(content)
    except orjson.JSONEncodeError as error:
        raise InvalidRequest(f"The body cannot be passed on: {error}") from error


def is_refusable(call: Call) -> bool:
    """Whether a server may refuse a request for a bound that its caller did not ask for."""
    return call.longest is not None and not call.longest.is_asked


def wants_usage(asked: Mapping[str, Any]) -> bool:
    """Whether the caller of a stream asked for the usage."""
    return bool((asked.get("stream_options") or {}).get("include_usage"))


def headers(call: Call, now: float) -> dict[str, str]:
    """Return the headers that go with a call."""
    return {
        **call.headers,
        "x-request-id": call.request_id,
        **time_left(call.deadline - now),
    }


def time_left(seconds: float | None) -> dict[str, str]:
    """Return the header that tells how long an answer is waited for; none where it is for ever."""
    # 0 would be refused as no time at all, and that as the caller's mistake.
    return {} if seconds is None else {TIMEOUT_HEADER: f"{max(seconds, 0.001):.3f}"}

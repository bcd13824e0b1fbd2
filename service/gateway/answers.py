"""What servers answer with: whole bodies, bounded, and errors in OpenAI's shape."""

from __future__ import annotations

import math
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from infra.contracts import Usage
from infra.errors import EngineFailed, Overloaded
from service.engines import Reply
from service.gateway.events import read_usage
from service.gateway.outgoing import Bound

MAX_ANSWER_BYTES = 64 * 2**20
MAX_ERROR_BYTES = 64 * 1024
MAX_REASON_CHARACTERS = 300
LARGE_BYTES = 128 * 1024
"""Of an answer of which only the end is read: vectors are not worth parsing."""
LONGEST_RETRY_AFTER = 60.0
TOO_LONG = re.compile(
    rb"\b(max_(completion_|new_)?tokens|n_predict)\b"
    rb"|context[ _](length|size|window)|reads and writes"
)
"""Words of a refusal that is about how long prompt and answer are together: of OpenAI, vLLM, TGI,
llama.cpp and of another Ragstone."""
UNKNOWN_NAME = re.compile(rb"\bmax_tokens\b.{1,80}\buse\b.{1,20}\bmax_completion_tokens\b")
"""OpenAI's, for its newer models: `max_tokens` is not supported, use the other name instead."""
OURS = frozenset({401, 403, 404})
"""Refusals that are about how this gateway is set up, not about what the caller sent."""


@dataclass(frozen=True, slots=True)
class Whole:
    """An answer that is not a stream."""

    status: int
    body: bytes
    usage: Usage | None = None
    cached_tokens: int = 0
    finish_reason: str | None = None


class Refused(EngineFailed):
    """The server answered that it cannot do this, though it is well."""


async def read(reply: Reply, *, limit: int = MAX_ANSWER_BYTES) -> bytes:
    """Read an answer to its end.

    Raises:
        EngineFailed: it broke off, or has more than `limit` bytes.
    """
    pieces = []
    size = 0
    async for piece in reply.pieces():
        pieces.append(piece)
        size += len(piece)
        if size > limit:
            await reply.close()
            raise EngineFailed(f"The server's answer exceeds {limit:,} bytes")
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


async def read_whole(reply: Reply) -> Whole:
    """Read a good answer and what it is charged by.

    Raises:
        EngineFailed: it broke off, is too large, or is no JSON object.
    """
    body = await read(reply)
    if len(body) > LARGE_BYTES:
        return _read_end(body)
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        content = None
    if not isinstance(content, dict):
        raise EngineFailed("The server answered with something else than a JSON object")
    usage, cached = _usage(content)
    return Whole(200, body, usage, cached, _finish_reason(content))


async def refuse(reply: Reply, address: str) -> Whole:
    """Return the server's error for the caller, where it is the caller's.

    Raises:
        Overloaded: the server has too much to do.
        Refused: the server is well and cannot do this.
        EngineFailed: the server failed.
    """
    status, headers = reply.status, reply.headers
    body = await read(reply, limit=MAX_ERROR_BYTES)
    error = _error_of(body)
    words = f"{address} answered {status}: {str(error['message'])[:MAX_REASON_CHARACTERS]}"
    if status == 429 or (status == 503 and "retry-after" in headers):
        raise Overloaded(words, retry_after_seconds=_seconds(headers))
    if status in OURS:
        raise Refused(words)
    if not 400 <= status < 500:
        raise EngineFailed(words)
    return Whole(status, orjson.dumps({"error": error}))


async def reason_of(pieces: AsyncIterator[bytes]) -> str:
    """Return in words why a call was not answered."""
    return reason_in(b"".join([piece async for piece in pieces]))


def reason_in(body: bytes) -> str:
    """Return the words of an error that a server answered with."""
    return str(_error_of(body)["message"])[:MAX_REASON_CHARACTERS]


def asks_otherwise(refusal: Whole, *, is_bound_ours: bool) -> Bound | None:
    """Return how a server that refuses the bound of an answer takes it; None if it is not that.

    Args:
        refusal: what it answered.
        is_bound_ours: the caller did not ask for the bound: a server that has room for less than
            ours needs none.
    """
    words = refusal.body.lower()
    if UNKNOWN_NAME.search(words):
        return "max_completion_tokens"
    return "none" if is_bound_ours and TOO_LONG.search(words) else None


def _error_of(body: bytes) -> dict[str, Any]:
    """Return OpenAI's error object, also from the flat form of older servers."""
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        content = {}
    given = content.get("error", content) if isinstance(content, dict) else {}
    if not isinstance(given, dict):
        given = {"message": str(given)}
    message = given.get("message") or given.get("detail")
    if not isinstance(message, str):
        message = body[:300].decode("utf-8", "replace") or "no reason was given"
    return {
        **given,
        "message": message,
        "type": given.get("type") or "invalid_request_error",
        "param": given.get("param"),
        "code": given.get("code") or "invalid_value",
    }


def _read_end(body: bytes) -> Whole:
    """Look for the usage behind the data, without parsing what comes before."""
    if not (body.startswith(b"{") and body.rstrip().endswith(b"}")):
        raise EngineFailed("The server answered with something else than a JSON object")
    at = body.rfind(b'"usage"')
    start = body.find(b"{", at) if at >= 0 else -1
    if start < 0:
        return Whole(200, body)
    depth, end = 0, start
    for end in range(start, min(len(body), start + 4096)):
        depth += {123: 1, 125: -1}.get(body[end], 0)
        if depth == 0:
            break
    try:
        usage, cached = read_usage(orjson.loads(body[start : end + 1]))
    except orjson.JSONDecodeError:
        return Whole(200, body)
    return Whole(200, body, usage, cached)


def _usage(content: dict[str, Any]) -> tuple[Usage | None, int]:
    given = content.get("usage")
    return read_usage(given) if isinstance(given, dict) else (None, 0)


def _finish_reason(content: dict[str, Any]) -> str | None:
    choices = content.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    reason = first.get("finish_reason") if isinstance(first, dict) else None
    return reason if isinstance(reason, str) else None


def _seconds(headers: Mapping[str, str]) -> float:
    try:
        seconds = float(headers.get("retry-after", "1"))
    except ValueError:  # a date
        return 1.0
    return min(max(seconds, 1.0), LONGEST_RETRY_AFTER) if math.isfinite(seconds) else 1.0

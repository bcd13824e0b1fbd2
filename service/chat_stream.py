"""Reads the stream of a chat completion: text, function calls, the finish reason, the usage."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import orjson

from infra.contracts import Usage
from infra.errors import EngineFailed

MAX_EVENT_BYTES = 8 * 2**20
"""Of one event; a server that sends more is not one that we understand."""


@dataclass(frozen=True, slots=True)
class TextPiece:
    text: str


@dataclass(frozen=True, slots=True)
class CallPiece:
    """A piece of a function call; the name and the id come with its first."""

    index: int
    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class End:
    finish_reason: str


@dataclass(frozen=True, slots=True)
class Used:
    usage: Usage
    cached_tokens: int


ChatPiece: TypeAlias = TextPiece | CallPiece | End | Used


async def read_chat(pieces: AsyncIterator[bytes]) -> AsyncIterator[ChatPiece]:
    """Yield what the bytes of a `text/event-stream` say, however they were cut.

    Raises:
        EngineFailed: it is not a stream of chat completion chunks, or it says that it failed.
    """
    async for event in _events(pieces):
        if event == b"[DONE]":
            return
        for piece in _read(event):
            yield piece


async def _events(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    waiting = b""
    async for piece in pieces:
        waiting = (waiting + piece).replace(b"\r\n", b"\n")
        *events, waiting = waiting.split(b"\n\n")
        if len(waiting) > MAX_EVENT_BYTES:
            raise EngineFailed(f"The model server sent an event of over {MAX_EVENT_BYTES:,} bytes")
        for event in events:
            if data := _data(event):
                yield data
    if data := _data(waiting):  # a server that ends without an empty line
        yield data


def _data(event: bytes) -> bytes:
    lines = (line[5:].lstrip() for line in event.split(b"\n") if line.startswith(b"data:"))
    return b"\n".join(lines)


def _read(event: bytes) -> Iterator[ChatPiece]:
    try:
        chunk = orjson.loads(event)
        if chunk.get("error"):
            raise EngineFailed(f"The model failed: {_said(chunk['error'])}")
        for choice in chunk.get("choices", ()):
            yield from _read_choice(choice)
        if chunk.get("usage"):
            yield _read_usage(chunk["usage"])
    except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError) as error:
        raise EngineFailed("The model server sent what is no chat completion chunk") from error


def _read_choice(choice: dict[str, Any]) -> Iterator[ChatPiece]:
    delta = choice.get("delta") or {}
    if delta.get("content"):
        yield TextPiece(delta["content"])
    for call in delta.get("tool_calls") or ():
        function = call.get("function") or {}
        yield CallPiece(
            call["index"],
            call.get("id") or "",
            function.get("name") or "",
            function.get("arguments") or "",
        )
    if choice.get("finish_reason"):
        yield End(choice["finish_reason"])


def _read_usage(usage: dict[str, Any]) -> Used:
    details = usage.get("prompt_tokens_details") or {}
    return Used(
        Usage(usage["prompt_tokens"], usage["completion_tokens"]), details.get("cached_tokens") or 0
    )


def _said(error: Any) -> str:
    message = error.get("message") if isinstance(error, dict) else error
    return str(message)[:300]

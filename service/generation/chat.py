"""A chat model as an answer needs it: OpenAI's events in, text, end and usage out."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

import orjson

from infra.contracts import Usage
from infra.errors import EngineFailed
from service.engines import ModelServer, Reply

Message: TypeAlias = Mapping[str, str]
"""`role` and `content`."""

MAX_LINE_BYTES = 1 * 2**20
MAX_ERROR_BYTES = 64 * 2**10
MAX_ERROR_CHARACTERS = 300


class ChatModel(Protocol):
    """Completes chats: a model server by itself, or a route of the gateway for one caller."""

    @property
    def name(self) -> str:
        """The route, as requests name it."""
        ...

    @property
    def context_tokens(self) -> int | None:
        """Room for the prompt and the answer together; None where it is not known."""
        ...

    def complete(self, body: Mapping[str, Any]) -> AsyncGenerator[bytes, None]:
        """Yield the event stream of a chat completion; closing it stops the work.

        Raises:
            EngineFailed: there is no answer, or it broke off.
        """
        ...

    async def count(self, messages: Sequence[Message]) -> int | None:
        """Return the tokens of a chat as the model counts them; None where it cannot say."""
        ...


@dataclass(frozen=True, slots=True)
class Piece:
    """What one event of a stream adds."""

    text: str = ""
    finish_reason: Literal["stop", "length"] | None = None
    usage: Usage | None = None


class ServedChat:
    """A model of one model server, asked directly."""

    def __init__(
        self,
        server: ModelServer,
        model: str,
        *,
        context_tokens: int | None = None,
        timeout_seconds: float = 120.0,
    ) -> None:
        self.name = model
        self.context_tokens = context_tokens
        self._server = server
        self._timeout_seconds = timeout_seconds

    async def complete(self, body: Mapping[str, Any]) -> AsyncGenerator[bytes, None]:
        """Yield the events of `/v1/chat/completions`."""
        reply = await self._send("/v1/chat/completions", body)
        try:
            if reply.status != 200:
                address = self._server.address
                raise EngineFailed(await refusal(reply.pieces(), reply.status, address))
            async for piece in reply.pieces():
                yield piece
        finally:
            await reply.close()

    async def count(self, messages: Sequence[Message]) -> int | None:
        """Ask vLLM's `/tokenize`, which applies the chat template; other servers have none."""
        body = {"model": self.name, "messages": list(messages), "add_generation_prompt": True}
        try:
            reply = await self._send("/tokenize", body)
            try:
                answer = await _whole(reply.pieces(), MAX_LINE_BYTES * 4)
            finally:
                await reply.close()
        except EngineFailed:
            return None
        if reply.status != 200:
            return None
        counted = _json(answer).get("count")
        return counted if isinstance(counted, int) else None

    async def _send(self, path: str, body: Mapping[str, Any]) -> Reply:
        return await self._server.send(
            path, orjson.dumps(body), headers={}, timeout_seconds=self._timeout_seconds
        )


async def read(events: AsyncIterator[bytes], *, name: str) -> AsyncGenerator[Piece, None]:
    """Yield the pieces of an event stream, whatever pieces its bytes come in.

    Raises:
        EngineFailed: an event is an error or no JSON, or the stream ends before the answer does.
    """
    is_ended = False
    async for line in _lines(events, name):
        if not line.startswith(b"data:"):
            continue
        data = line[5:].strip()
        if data == b"[DONE]":
            break
        piece = _piece(_json(data), name)
        is_ended = is_ended or piece.finish_reason is not None
        yield piece
    if not is_ended:
        raise EngineFailed(f"The model {name!r} stopped before the answer's end")


async def _lines(events: AsyncIterator[bytes], name: str) -> AsyncGenerator[bytes, None]:
    waiting = b""
    async for data in events:
        *lines, waiting = (waiting + data).split(b"\n")
        for line in lines:
            yield line.rstrip(b"\r")
        if len(waiting) > MAX_LINE_BYTES:
            raise EngineFailed(f"The model {name!r} sent a line of over {MAX_LINE_BYTES:,} bytes")
    if waiting:
        yield waiting


def _piece(event: dict[str, Any], name: str) -> Piece:
    if "error" in event or not isinstance(event.get("choices"), list):
        raise EngineFailed(f"The model {name!r} failed: {_said(event)}")
    usage = event.get("usage")
    counted = _usage(usage) if isinstance(usage, dict) else None
    if not event["choices"]:
        return Piece(usage=counted)
    choice = event["choices"][0]
    if not isinstance(choice, dict):
        raise EngineFailed(f"The model {name!r} sent what is no completion: {choice!r:.100}")
    text = (choice.get("delta") or {}).get("content")
    reason = choice.get("finish_reason")
    return Piece(
        text=text if isinstance(text, str) else "",
        finish_reason=None if reason is None else "length" if reason == "length" else "stop",
        usage=counted,
    )


def _usage(usage: Mapping[str, Any]) -> Usage:
    prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
    return Usage(
        prompt if isinstance(prompt, int) else 0, completion if isinstance(completion, int) else 0
    )


def _json(data: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise EngineFailed(f"A model sent what is not JSON: {data[:80]!r}") from None
    if not isinstance(value, dict):
        raise EngineFailed(f"A model sent what is no object: {data[:80]!r}")
    return value


async def _whole(pieces: AsyncIterator[bytes], most: int) -> bytes:
    parts, size = [], 0
    async for piece in pieces:
        parts.append(piece)
        size += len(piece)
        if size > most:
            break
    return b"".join(parts)[:most]


async def refusal(pieces: AsyncIterator[bytes], status: int, address: str) -> str:
    """Return in words why a model server did not answer."""
    said = await _whole(pieces, MAX_ERROR_BYTES)
    try:
        reason = _said(_json(said))
    except EngineFailed:
        reason = repr(said[:100])
    return f"The model server {address} answered {status}: {reason}"


def _said(event: Mapping[str, Any]) -> str:
    error = event.get("error", event)
    message = error.get("message") if isinstance(error, dict) else error
    return str(message or error)[:MAX_ERROR_CHARACTERS]

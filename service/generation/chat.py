"""A chat model as an answer needs it: OpenAI's events in, text, end and usage out."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

import orjson

from infra.contracts import Usage
from infra.errors import EngineFailed
from service.chat_stream import End, TextPiece, Used, read_chat
from service.engines import ModelServer, Reply
from service.gateway.answers import read as read_body
from service.gateway.answers import reason_of

Message: TypeAlias = Mapping[str, str]
"""`role` and `content`."""

MAX_COUNT_BYTES = 4 * 2**20
"""vLLM lists the tokens, too."""


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

    def complete(
        self, body: Mapping[str, Any], *, documents: Sequence[str] = ()
    ) -> AsyncGenerator[bytes, None]:
        """Yield the event stream of a chat completion; closing it stops the work.

        Args:
            body: of the request.
            documents: public ids of those that it quotes.

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

    async def complete(
        self,
        body: Mapping[str, Any],
        *,
        documents: Sequence[str] = (),  # noqa: ARG002 - nothing is kept here
    ) -> AsyncGenerator[bytes, None]:
        """Yield the events of `/v1/chat/completions`."""
        reply = await self._send("/v1/chat/completions", body)
        try:
            if reply.status != 200:
                reason = await reason_of(reply.pieces())
                where = f"The model server {self._server.address}"
                raise EngineFailed(f"{where} answered {reply.status}: {reason}")
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
                answer = await read_body(reply, limit=MAX_COUNT_BYTES)
            finally:
                await reply.close()
        except EngineFailed:
            return None
        return _count_in(answer) if reply.status == 200 else None

    async def _send(self, path: str, body: Mapping[str, Any]) -> Reply:
        return await self._server.send(
            path, orjson.dumps(body), headers={}, timeout_seconds=self._timeout_seconds
        )


async def read(events: AsyncIterator[bytes], *, name: str) -> AsyncGenerator[Piece, None]:
    """Yield the pieces of an event stream, whatever pieces its bytes come in.

    Raises:
        EngineFailed: an event is an error or no chunk, or the stream ends before the answer does.
    """
    is_ended = False
    async for piece in read_chat(events):
        match piece:
            case TextPiece():
                yield Piece(piece.text)
            case End():
                is_ended = True
                yield Piece(finish_reason="length" if piece.finish_reason == "length" else "stop")
            case Used():
                yield Piece(usage=piece.usage)
    if not is_ended:
        raise EngineFailed(f"The model {name!r} stopped before the answer's end")


def _count_in(answer: bytes) -> int | None:
    try:
        counted = orjson.loads(answer)["count"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
    return counted if isinstance(counted, int) else None

"""Answers of a local model as OpenAI's bytes: whole, in events, or an error object."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import orjson

from infra.errors import RateLimited
from infra.security import new_id
from service.engines._local_requests import Request
from service.engines._local_sampling import Chosen
from service.engines._local_worker import Piece

JSON = {"content-type": "application/json"}
EVENTS = {"content-type": "text/event-stream; charset=utf-8"}
DONE = b"data: [DONE]\n\n"


class Whole:
    """A reply whose body is there."""

    def __init__(
        self, status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None
    ) -> None:
        self.status = status
        self.headers: Mapping[str, str] = {**JSON, **(headers or {})}
        self._body = orjson.dumps(body)

    async def pieces(self) -> AsyncIterator[bytes]:
        yield self._body

    async def close(self) -> None:
        """Do nothing: there is no work left to stop."""


class Stream:
    """A reply in events, as the tokens come."""

    status = 200
    headers: Mapping[str, str] = EVENTS

    def __init__(
        self,
        first: Piece,
        pieces: asyncio.Queue[Piece],
        *,
        writer: Writer,
        cancel: Callable[[], None],
    ) -> None:
        self._first = first
        self._pieces = pieces
        self._writer = writer
        self._cancel = cancel

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield events.

        Raises:
            EngineFailed: the model failed.
        """
        piece = self._first
        try:
            yield self._writer.opening()
            while True:
                if piece.failure is not None:
                    raise piece.failure
                yield self._writer.event(piece)
                if piece.finish_reason is not None:
                    break
                piece = await self._pieces.get()
            yield self._writer.closing(piece.completion_tokens)
        finally:
            self._cancel()

    async def close(self) -> None:
        self._cancel()


class Writer:
    """Writes one answer in the form that was asked for."""

    def __init__(self, request: Request, *, prompt_tokens: int, decode: Any) -> None:
        self._request = request
        self._prompt_tokens = prompt_tokens
        self._decode = decode
        self._offset = 0
        self._head = {
            "id": new_id("chatcmpl-" if request.is_chat else "cmpl-"),
            "created": int(time.time()),
            "model": request.model,
        }

    def whole(self, pieces: Sequence[Piece]) -> Whole:
        """Return the answer in one body."""
        text = "".join(piece.text for piece in pieces)
        last = pieces[-1]
        choice = {
            "index": 0,
            "finish_reason": last.finish_reason,
            "logprobs": self._logprobs([piece.chosen for piece in pieces if piece.chosen]),
        }
        if self._request.is_chat:
            choice["message"] = {"role": "assistant", "content": text, "refusal": None}
        else:
            choice["text"] = text
        body = {
            **self._head,
            "object": "chat.completion" if self._request.is_chat else "text_completion",
            "choices": [choice],
            "usage": self._usage(last.completion_tokens),
        }
        return Whole(200, body)

    def opening(self) -> bytes:
        """Return the event that says who speaks; only a chat has one."""
        if not self._request.is_chat:
            return b""
        delta = {"role": "assistant", "content": ""}
        return self._written([{"index": 0, "delta": delta, "finish_reason": None}])

    def event(self, piece: Piece) -> bytes:
        """Return what one step added; nothing where that is not text yet."""
        if not (piece.text or piece.chosen or piece.finish_reason):
            return b""
        choice: dict[str, Any] = {"index": 0, "finish_reason": piece.finish_reason}
        if self._request.is_chat:
            choice["delta"] = {"content": piece.text} if piece.text else {}
        else:
            choice["text"] = piece.text
        choice["logprobs"] = self._logprobs([piece.chosen] if piece.chosen else [])
        return self._written([choice])

    def closing(self, completion_tokens: int) -> bytes:
        """Return the usage, if it was asked for, and the end."""
        if not self._request.wants_usage:
            return DONE
        return self._written([], usage=self._usage(completion_tokens)) + DONE

    def _written(self, choices: Sequence[Mapping[str, Any]], **more: Any) -> bytes:
        kind = "chat.completion.chunk" if self._request.is_chat else "text_completion"
        event = orjson.dumps({**self._head, "object": kind, "choices": choices, **more})
        return b"data: " + event + b"\n\n"

    def _usage(self, completion_tokens: int) -> dict[str, int]:
        return {
            "prompt_tokens": self._prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": self._prompt_tokens + completion_tokens,
        }

    def _logprobs(self, tokens: Sequence[Chosen]) -> dict[str, Any] | None:
        if self._request.sampling.logprobs is None or not tokens:
            return None
        if self._request.is_chat:
            return {
                "content": [
                    {
                        **self._entry(each.token, each.logprob or 0.0),
                        "top_logprobs": [self._entry(*pair) for pair in each.alternatives],
                    }
                    for each in tokens
                ]
            }
        texts = [self._decode([each.token]) for each in tokens]
        offsets = []
        for text in texts:
            offsets.append(self._offset)
            self._offset += len(text)
        return {
            "tokens": texts,
            "token_logprobs": [each.logprob for each in tokens],
            "top_logprobs": [
                {self._decode([token]): logprob for token, logprob in each.alternatives}
                for each in tokens
            ],
            "text_offset": offsets,
        }

    def _entry(self, token: int, logprob: float) -> dict[str, Any]:
        text = self._decode([token])
        return {"token": text, "logprob": logprob, "bytes": list(text.encode())}


def refusal(
    status: int, message: str, *, parameter: str | None = None, code: str | None = None
) -> Whole:
    """Return an error object."""
    error = {
        "message": message,
        "type": "invalid_request_error",
        "param": parameter,
        "code": code,
    }
    return Whole(status, {"error": error})


def busy(error: RateLimited) -> Whole:
    """Return the error object of a full queue."""
    body = {
        "message": error.message,
        "type": "rate_limit_error",
        "param": None,
        "code": "engine_overloaded",
    }
    return Whole(429, {"error": body}, {"retry-after": str(max(1, int(error.retry_after_seconds)))})

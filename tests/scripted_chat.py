"""A chat model that says what it is told to, as OpenAI's events, cut wherever a test wants."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any

import anyio
import orjson

from infra.errors import EngineFailed


class ScriptedChat:
    """Speaks the event stream of a model server; remembers what it was asked."""

    def __init__(
        self,
        reply: str | Callable[[Mapping[str, Any]], str],
        *,
        pieces: Sequence[int] = (),
        cut_bytes: int = 0,
        context_tokens: int | None = None,
        counter: Callable[[str], int] | None = None,
        finish_reason: str | None = "stop",
        failure: str = "",
        delay_seconds: float = 0.0,
    ) -> None:
        self.name = "scripted"
        self.context_tokens = context_tokens
        self.bodies: list[Mapping[str, Any]] = []
        self.counted = 0
        self.told = 0
        self.is_closed = False
        self._reply = reply
        self._pieces = pieces
        self._cut_bytes = cut_bytes
        self._counter = counter
        self._finish_reason = finish_reason
        self._failure = failure
        self._delay_seconds = delay_seconds

    async def complete(
        self, body: Mapping[str, Any], *, documents: Sequence[str] = ()
    ) -> AsyncGenerator[bytes, None]:
        self.bodies.append(body)
        self.documents = tuple(documents)
        if self._failure:
            raise EngineFailed(self._failure)
        reply = self._reply if isinstance(self._reply, str) else self._reply(body)
        try:
            for data in self._frames(reply):
                await anyio.sleep(self._delay_seconds)
                size = self._cut_bytes or len(data)
                for start in range(0, len(data), size):
                    yield data[start : start + size]
                self.told += 1
        finally:
            self.is_closed = True

    async def count(self, messages: Sequence[Mapping[str, str]]) -> int | None:
        if self._counter is None:
            return None
        self.counted += 1
        return sum(self._counter(message["content"]) for message in messages)

    def _frames(self, reply: str) -> list[bytes]:
        texts = cut(reply, self._pieces or (4,))
        frames = [_frame({"role": "assistant", "content": ""})]
        frames += [_frame({"content": text}) for text in texts]
        if self._finish_reason is not None:
            frames.append(_frame({}, finish_reason=self._finish_reason))
        usage = {"prompt_tokens": 100, "completion_tokens": len(texts)}
        frames.append(_event({"choices": [], "usage": usage}))
        return [*frames, b"data: [DONE]\n\n"]


def cut(text: str, sizes: Sequence[int]) -> list[str]:
    """Cut a text into pieces of these sizes, over and over."""
    pieces, at, turn = [], 0, 0
    while at < len(text):
        size = max(1, sizes[turn % len(sizes)])
        pieces.append(text[at : at + size])
        at, turn = at + size, turn + 1
    return pieces


def _frame(delta: Mapping[str, Any], *, finish_reason: str | None = None) -> bytes:
    return _event({"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]})


def _event(value: Mapping[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(value) + b"\n\n"

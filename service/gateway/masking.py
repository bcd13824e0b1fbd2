"""Answers of models without the personal data in them, whole or while they stream."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

import orjson

from infra.errors import EngineFailed
from infra.expectations.recognizers import mask
from service.errors import as_object, describe
from service.gateway.calls import Call
from service.gateway.events import DONE
from service.gateway.replies import GatewayReply, Pieces, whole
from service.gateway.transcripts import SPOKEN
from service.limits import in_thread
from service.redaction import Redactor
from service.streaming import frame

Run: TypeAlias = Callable[[Call], Awaitable[GatewayReply]]
LARGE_BYTES = 8 * 1024
"""What is longer is masked in a thread: it takes milliseconds."""
SPELT_OUT = frozenset({"logprobs", "prompt_logprobs", "token_ids", "prompt_token_ids"})
"""Fields that tell a text once more, token by token; they are left out."""
NO_TEXT = frozenset({"role", "tool_calls", "function_call", "audio"})
"""Fields of a message that a program reads; it needs them as they are."""
_END = re.compile(rb"\r?\n\r?\n")


class MaskedCalls:
    """Stands around the gateway and masks personal data in the texts of its answers."""

    def __init__(self, run: Run) -> None:
        """`run` answers."""
        self._run = run

    async def run(self, call: Call) -> GatewayReply:
        """Answer a call, masked.

        Raises:
            EngineFailed: the server's answer cannot be read, so nobody knows what is in it.
        """
        reply = await self._run(call)
        if call.path not in SPOKEN or reply.status != 200:
            return reply
        if not reply.is_whole:
            return replace(reply, pieces=_MaskedStream(reply.pieces))
        body = b"".join([piece async for piece in reply.pieces])
        masked = await _done(partial(_masked, body), size=len(body))
        headers = {**reply.headers, "content-length": str(len(masked))}
        return replace(reply, headers=headers, pieces=whole(masked))


class _MaskedStream(AsyncIterator[bytes]):
    """Events as they come; of a text the end is held back while it may begin something personal."""

    def __init__(self, pieces: Pieces) -> None:
        self._pieces = pieces
        self._masker = EventMasker()
        self._has_failed = False

    async def __anext__(self) -> bytes:
        while not self._has_failed:
            piece = await self._pieces.__anext__()
            try:
                told = await _done(partial(self._masker.feed, piece), size=len(piece))
            except EngineFailed as error:
                self._has_failed = True
                await self._pieces.aclose()
                return frame(as_object(describe(error)))
            if told:
                return told
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Stop the work."""
        await self._pieces.aclose()


class EventMasker:
    """Masks the texts in the events of one stream, each as it would the whole of it."""

    def __init__(self) -> None:
        self._redactors: dict[tuple[int, str], Redactor] = {}
        self._frame: dict[str, Any] = {}
        """What every event says beside its choices."""

    def feed(self, events: bytes) -> bytes:
        """Return whole events, masked.

        Raises:
            EngineFailed: one of them cannot be read.
        """
        return b"".join([self._event(event) for event in _END.split(events) if event])

    def _event(self, event: bytes) -> bytes:
        lines = event.splitlines()
        data = b"\n".join([line[5:].lstrip() for line in lines if line.startswith(b"data:")])
        if not data:
            return event + b"\n\n"
        if data == b"[DONE]":
            return self._held() + DONE
        content = _object(data)
        if content.get("error"):
            return event + b"\n\n"
        if not self._tells(content):
            return b""
        others = [line + b"\n" for line in lines if not line.startswith(b"data:")]
        return b"".join(others) + b"data: " + orjson.dumps(content) + b"\n\n"

    def _tells(self, content: dict[str, Any]) -> bool:
        """Mask an event's content in place; False where nothing is left to tell."""
        _leave_out(content)
        choices = _objects(content.get("choices"))
        self._frame = {
            name: each for name, each in content.items() if name not in {"choices", "usage"}
        }
        tells = [self._mask_choice(choice) for choice in choices]
        return any(tells) or not choices or bool(content.get("usage"))

    def _mask_choice(self, choice: dict[str, Any]) -> bool:
        index = choice.get("index")
        index = index if isinstance(index, int) else 0
        _leave_out(choice)
        said, names = _said(choice)
        had_text = any(said[name] for name in names)
        for name in names:
            said[name] = self._redactor(index, name).feed(said[name])
        if choice.get("finish_reason"):
            self._end(choice, index)
            return True
        has_more = said is not choice and not said.keys() <= {*names, "role"}
        return has_more or not had_text or any(said[name] for name in names)

    def _end(self, choice: dict[str, Any], index: int) -> None:
        """Add what is held back of a choice to its last event."""
        for (of, name), redactor in self._redactors.items():
            if of == index and (rest := redactor.end()):
                if name != "text" and not isinstance(choice.get("delta"), dict):
                    choice["delta"] = {}
                said = choice if name == "text" else choice["delta"]
                said[name] = (said.get(name) or "") + rest

    def _redactor(self, index: int, name: str) -> Redactor:
        return self._redactors.setdefault((index, name), Redactor())

    def _held(self) -> bytes:
        """Return what is still held back as events of its own: the server did not say its end."""
        told = b""
        for (index, name), redactor in self._redactors.items():
            if rest := redactor.end():
                said = {"text": rest} if name == "text" else {"delta": {name: rest}}
                choice = {"index": index, **said, "finish_reason": None}
                told += frame({**self._frame, "choices": [choice]})
        return told


def _masked(body: bytes) -> bytes:
    content = _object(body)
    _leave_out(content)
    for choice in _objects(content.get("choices")):
        _leave_out(choice)
        said, names = _said(choice)
        for name in names:
            said[name] = mask(said[name])
    return orjson.dumps(content)


def _said(choice: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return what holds a choice's texts, and by what names: the message, a part of it, or it."""
    for name in ("message", "delta"):
        if isinstance(said := choice.get(name), dict):
            _join_parts(said)
            texts = [each for each, value in said.items() if isinstance(value, str)]
            return said, [each for each in texts if each not in NO_TEXT]
    return choice, ["text"] if isinstance(choice.get("text"), str) else []


def _join_parts(said: dict[str, Any]) -> None:
    """Make one text of the parts in which some servers send it: it is masked as a whole."""
    parts = said.get("content")
    if isinstance(parts, list):
        texts = [part.get("text") for part in _objects(parts)]
        said["content"] = "".join([text for text in texts if isinstance(text, str)])


def _leave_out(holder: dict[str, Any]) -> None:
    for name in SPELT_OUT & holder.keys():
        holder[name] = None


def _object(data: bytes) -> dict[str, Any]:
    try:
        content = orjson.loads(data)
    except orjson.JSONDecodeError:
        content = None
    if not isinstance(content, dict):
        raise EngineFailed("The server's answer cannot be read, so it cannot be masked either")
    return content


def _objects(values: Any) -> list[dict[str, Any]]:
    return [each for each in values if isinstance(each, dict)] if isinstance(values, list) else []


async def _done(work: Callable[[], bytes], *, size: int) -> bytes:
    return await in_thread(work) if size > LARGE_BYTES else work()

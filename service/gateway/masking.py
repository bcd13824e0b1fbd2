"""Answers of models without the personal data in them, whole or while they stream."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

import orjson

from infra.errors import EngineFailed, Overloaded
from infra.expectations.recognizers import mask
from service.errors import as_object, describe
from service.gateway.calls import Call
from service.gateway.events import DONE
from service.gateway.replies import GatewayReply, Pieces, whole
from service.gateway.told_fields import (
    HOLDERS,
    TOLD_AT_ONCE,
    Path,
    Told,
    add,
    index_of,
    masked,
    objects,
    told_in,
)
from service.gateway.transcripts import SPOKEN
from service.limits import in_thread
from service.redaction import Redactor
from service.streaming import frame

Run: TypeAlias = Callable[[Call], Awaitable[GatewayReply]]
LARGE_BYTES = 8 * 1024
"""What is longer is masked in a thread: it takes milliseconds."""
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
        try:
            reply = await self._run(call)
        except (EngineFailed, Overloaded) as error:  # in which the server may quote the request
            error.message = mask(error.message)
            error.args = (error.message,)
            raise
        if reply.status == 200 and call.path not in SPOKEN:
            return reply
        if not reply.is_whole:
            return replace(reply, pieces=_MaskedStream(reply.pieces))
        body = b"".join([piece async for piece in reply.pieces])
        work = partial(_masked if reply.status == 200 else _masked_refusal, body)
        told = await _done(work, size=len(body))
        headers = {**reply.headers, "content-length": str(len(told))}
        return replace(reply, headers=headers, pieces=whole(told))


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
        self._redactors: dict[tuple[int | None, Path], Redactor] = {}
        self._frame: dict[str, Any] = {}
        """What every event says beside its texts."""

    def feed(self, events: bytes) -> bytes:
        """Return whole events, masked.

        Raises:
            EngineFailed: one of them cannot be read.
        """
        return b"".join([self._event(event) for event in _END.split(events) if event])

    def _event(self, event: bytes) -> bytes:
        lines = event.splitlines()
        data = b"\n".join([line[5:].lstrip() for line in lines if line.startswith(b"data:")])
        others = [_line(line) for line in lines if not line.startswith(b"data:")]
        if not data:
            return b"".join(others) + b"\n"
        if data == b"[DONE]":
            return self._held() + DONE
        content = _object(data)
        if content.get("error"):
            content = masked(content)
        elif not self._tells(content):
            return b""
        return b"".join(others) + frame(content)

    def _tells(self, content: dict[str, Any]) -> bool:
        """Mask an event's content in place; False where nothing is left to tell."""
        texts = told_in(content, is_event=True)
        had_text = {each.choice for each in texts if each.text}
        for each in texts:
            each.replace(self._redactor(each).feed(each.text))
        beside = {each.path[-1] for each in texts if each.choice is None}
        self._frame = {
            name: value
            for name, value in content.items()
            if name not in beside and not isinstance(value, dict | list)
        }
        choices = objects(content.get("choices"))
        ended = [choice for choice in choices if choice.get("finish_reason")]
        for choice in ended:
            self._end(choice, index_of(choice))
        if ended or not choices:
            self._end(content, None)
        if not had_text or ended or any(each.text for each in texts):
            return True
        return _has_more(content, texts) or any(index_of(each) not in had_text for each in choices)

    def _end(self, holder: dict[str, Any], choice: int | None) -> None:
        """Add what is held back of a choice, or beside the choices, to its last event."""
        for (of, path), redactor in self._redactors.items():
            if of == choice and (rest := redactor.end()):
                add(holder, path, rest)

    def _redactor(self, told: Told) -> Redactor:
        return self._redactors.setdefault((told.choice, told.path), Redactor())

    def _held(self) -> bytes:
        """Return what is still held back as events of its own: the server did not say its end."""
        told = b""
        for (index, path), redactor in self._redactors.items():
            if rest := redactor.end():
                choice: dict[str, Any] = {"index": index or 0, "finish_reason": None}
                content: dict[str, Any] = {**self._frame, "choices": [choice]}
                add(content if index is None else choice, path, rest)
                told += frame(content)
        return told


def _has_more(content: dict[str, Any], texts: Sequence[Told]) -> bool:
    """Whether an event says something although all its texts are held back."""
    if any(value for name, value in content.items() if name in TOLD_AT_ONCE):
        return True
    names = {"role", *(each.path[-1] for each in texts)}
    parts = [choice.get(part) for choice in objects(content.get("choices")) for part in HOLDERS]
    return any(not part.keys() <= names for part in parts if isinstance(part, dict))


def _line(line: bytes) -> bytes:
    """Return a line of an event that holds none of its content: a comment, a name, a number."""
    return mask(line.decode("utf-8", "replace")).encode() + b"\n"


def _masked(body: bytes) -> bytes:
    content = _object(body)
    for each in told_in(content, is_event=False):
        each.replace(mask(each.text))
    return orjson.dumps(content)


def _masked_refusal(body: bytes) -> bytes:
    """Return the words of a server that refuses a request, in which it may quote the request."""
    try:
        return orjson.dumps(masked(orjson.loads(body)))
    except orjson.JSONDecodeError:
        return mask(body.decode("utf-8", "replace")).encode()


def _object(data: bytes) -> dict[str, Any]:
    try:
        content = orjson.loads(data)
    except orjson.JSONDecodeError:
        content = None
    if not isinstance(content, dict):
        raise EngineFailed("The server's answer cannot be read, so it cannot be masked either")
    return content


async def _done(work: Callable[[], bytes], *, size: int) -> bytes:
    try:
        return await in_thread(work) if size > LARGE_BYTES else work()
    except RecursionError as error:
        raise EngineFailed("The server's answer is nested too deep to be masked") from error

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
NO_TEXT = frozenset({"role", "tool_calls", "function_call", "finish_reason", "stop_reason"})
"""Fields of a message or a choice that a program reads; it needs them as they are."""
HOLDERS = ("message", "delta")
"""Fields of a choice that hold what the model says."""
TOLD_AT_ONCE = frozenset({"annotations"})
"""Fields of a message that hold texts within, each of them whole in one event."""
SOUND = "data"
"""Of a spoken answer: it says what the transcript does, and nothing masks it."""
Path: TypeAlias = tuple[str, ...]
"""The names that lead from a choice to a text."""
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
        self._redactors: dict[tuple[int, Path], Redactor] = {}
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
        choices = _mask_around(content)
        self._frame = {
            name: each for name, each in content.items() if name not in {"choices", "usage"}
        }
        tells = [self._mask_choice(choice) for choice in choices]
        return any(tells) or not choices or bool(content.get("usage"))

    def _mask_choice(self, choice: dict[str, Any]) -> bool:
        index = choice.get("index")
        index = index if isinstance(index, int) else 0
        texts = _texts(choice)
        had_text = any(holder[path[-1]] for path, holder in texts)
        for path, holder in texts:
            holder[path[-1]] = self._redactor(index, path).feed(holder[path[-1]])
        if choice.get("finish_reason"):
            self._end(choice, index)
            return True
        return not had_text or _has_more(choice, texts)

    def _end(self, choice: dict[str, Any], index: int) -> None:
        """Add what is held back of a choice to its last event."""
        for (of, path), redactor in self._redactors.items():
            if of == index and (rest := redactor.end()):
                _add(choice, path, rest)

    def _redactor(self, index: int, path: Path) -> Redactor:
        return self._redactors.setdefault((index, path), Redactor())

    def _held(self) -> bytes:
        """Return what is still held back as events of its own: the server did not say its end."""
        told = b""
        for (index, path), redactor in self._redactors.items():
            if rest := redactor.end():
                choice: dict[str, Any] = {"index": index, "finish_reason": None}
                _add(choice, path, rest)
                told += frame({**self._frame, "choices": [choice]})
        return told


def _masked(body: bytes) -> bytes:
    content = _object(body)
    for choice in _mask_around(content):
        for path, holder in _texts(choice):
            holder[path[-1]] = mask(holder[path[-1]])
    return orjson.dumps(content)


def _mask_around(content: dict[str, Any]) -> list[dict[str, Any]]:
    """Mask what an answer says beside its choices, and return these."""
    _leave_out(content)
    for name, value in content.items():
        if name not in {"choices", "usage"} and isinstance(value, list | dict):
            content[name] = _mask_within(value)
    return _objects(content.get("choices"))


def _texts(choice: dict[str, Any]) -> list[tuple[Path, dict[str, Any]]]:
    """Return where a choice's texts stand: the names that lead there, and what holds each.

    What else may hold texts is masked here, or left out where nobody knows how its pieces join.
    """
    _leave_out(choice)
    texts: list[tuple[Path, dict[str, Any]]] = []
    for part, value in choice.items():
        if part in HOLDERS and isinstance(value, dict):
            _join_parts(value)
            for name in value.keys() - NO_TEXT:
                texts += _texts_of(value, name, (part, name))
        elif isinstance(value, str) and part not in NO_TEXT:
            texts.append(((part,), choice))
        elif part not in NO_TEXT:
            choice[part] = _mask_within(value)
    return texts


def _texts_of(said: dict[str, Any], name: str, path: Path) -> list[tuple[Path, dict[str, Any]]]:
    value = said[name]
    if isinstance(value, str):
        return [(path, said)]
    if name == "audio" and isinstance(value, dict):
        value.pop(SOUND, None)
        is_told = isinstance(value.get("transcript"), str)
        return [((*path, "transcript"), value)] if is_told else []
    if name in TOLD_AT_ONCE:
        said[name] = _mask_within(value)
    elif isinstance(value, list | dict):
        del said[name]
    return []


def _mask_within(value: Any) -> Any:
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, dict):
        return {name: _mask_within(part) for name, part in value.items()}
    return [_mask_within(part) for part in value] if isinstance(value, list) else value


def _has_more(choice: dict[str, Any], texts: list[tuple[Path, dict[str, Any]]]) -> bool:
    """Whether an event says something although its texts are held back, or has some left."""
    names = {path[-1] for path, _ in texts}
    parts = [choice[part] for part in HOLDERS if isinstance(choice.get(part), dict)]
    has_other = any(not part.keys() <= {*names, "role"} for part in parts)
    return has_other or any(holder[path[-1]] for path, holder in texts)


def _add(choice: dict[str, Any], path: Path, rest: str) -> None:
    holder = choice
    for name in path[:-1]:
        if not isinstance(holder.get(name), dict):
            holder[name] = {}
        holder = holder[name]
    holder[path[-1]] = (holder.get(path[-1]) or "") + rest


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

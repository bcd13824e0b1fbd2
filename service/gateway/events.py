"""Streams of server-sent events, relayed as bytes: read only where usage or the end stands."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import orjson

from infra.contracts import Usage
from infra.errors import EngineFailed

MAX_EVENT_BYTES = 4 * 2**20
DONE = b"data: [DONE]\n\n"
_FINISH = re.compile(rb'"finish_reason":\s?"(\w{1,40})"')
_STARTS = (b"data:", b":", b"event:", b"id:", b"retry:")


class Events:
    """Cuts what arrives at the ends of events, and notes what a call is charged by."""

    def __init__(
        self, *, strip_usage: bool, rename: Callable[[bytes], bytes] | None = None
    ) -> None:
        """Take what is changed on the way.

        Args:
            strip_usage: keep the event with the usage back: the client did not ask for it.
            rename: calls the model by the name that the client knows.
        """
        self._rename = rename
        self.usage: Usage | None = None
        self.cached_tokens = 0
        self.finish_reason: str | None = None
        self.is_done = False
        self.error: str | None = None
        self.count = 0
        """Events with content, about; a server sends one for a token or a few."""
        self._strip_usage = strip_usage
        self._held = b""

    def feed(self, piece: bytes) -> bytes:
        """Return the events that are complete now, as they are to be passed on.

        Raises:
            EngineFailed: this is no stream of events.
        """
        data = self._held + piece if self._held else piece
        if data.endswith(b"\n\n"):
            whole, self._held = data, b""
        else:
            end = _end_of_last(data)
            whole, self._held = data[:end], data[end:]
            if len(self._held) > MAX_EVENT_BYTES:
                raise EngineFailed("The server sent an event without end")
        if not whole:
            return whole
        if not whole.startswith(_STARTS):
            raise EngineFailed("The server sent something else than events")
        if self._rename is not None:
            whole = self._rename(whole)
        self.count += whole.count(b"data:")
        if (b'"finish_reason":"' in whole or b'"finish_reason": "' in whole) and (
            found := _FINISH.search(whole)
        ):
            self.finish_reason = found[1].decode("ascii")
        if b'"usage"' in whole or b"[DONE]" in whole or b'data: {"error"' in whole:
            return self._read(whole)
        return whole

    def _read(self, whole: bytes) -> bytes:
        separator = b"\r\n\r\n" if b"\r\n\r\n" in whole else b"\n\n"
        kept = [
            event + separator
            for event in whole.split(separator)
            if event and self._is_passed_on(event)
        ]
        return b"".join(kept)

    def _is_passed_on(self, event: bytes) -> bool:
        if event == b"data: [DONE]" or event == b"data:[DONE]":
            self.is_done = True
            return True
        if b'"usage"' not in event and b'{"error"' not in event:
            return True
        content = _content(event)
        if content.get("error"):
            self.error = _code(content["error"])
            return True
        if not isinstance(content.get("usage"), dict):
            return True
        self.usage, self.cached_tokens = read_usage(content["usage"])
        return bool(content.get("choices")) or not self._strip_usage


def read_usage(given: dict[str, Any]) -> tuple[Usage, int]:
    """Return the usage of an answer, and how much of its prompt the server's cache knew."""
    details = given.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else 0
    prompt = given.get("prompt_tokens")
    # An answer of a reranker has only the total.
    prompt = given.get("total_tokens") if prompt is None else prompt
    return Usage(_count(prompt), _count(given.get("completion_tokens"))), _count(cached)


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _end_of_last(data: bytes) -> int:
    end = data.rfind(b"\n\n")
    windows = data.rfind(b"\r\n\r\n")
    return max(end + 2 if end >= 0 else 0, windows + 4 if windows >= 0 else 0)


def _content(event: bytes) -> dict[str, Any]:
    """Return the JSON of an event; an empty object if it has none that can be read."""
    lines = [line[5:] for line in event.splitlines() if line.startswith(b"data:")]
    try:
        content = orjson.loads(b"\n".join(lines))
    except orjson.JSONDecodeError:
        return {}
    return content if isinstance(content, dict) else {}


def _code(error: Any) -> str:
    if isinstance(error, dict):
        return str(error.get("code") or error.get("type") or "engine_failed")[:60]
    return "engine_failed"

"""What a model says, read off its answer as it passes by: for records that hold content."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

MAX_CHARACTERS = 100_000
"""Of one answer; what comes after is passed on and not kept."""
SPOKEN = frozenset({"/v1/chat/completions", "/v1/completions"})
"""Paths whose answers are texts."""


class Transcript:
    """The text of one answer; of several choices, one below the other."""

    def __init__(self) -> None:
        self._choices: dict[int, list[str]] = {}
        self._left = MAX_CHARACTERS

    @property
    def text(self) -> str:
        """All of it so far."""
        return "\n".join("".join(self._choices[index]) for index in sorted(self._choices))

    def add_events(self, events: bytes) -> None:
        """Read whole events of a stream."""
        for line in events.splitlines() if self._left > 0 else ():
            if line.startswith(b"data:") and b"[DONE]" not in line[:20]:
                self._add(line[5:])

    def add_body(self, body: bytes) -> None:
        """Read an answer that is not a stream."""
        self._add(body)

    def _add(self, data: bytes) -> None:
        try:
            content = orjson.loads(data)
        except orjson.JSONDecodeError:
            return
        for choice in _objects(content.get("choices") if isinstance(content, dict) else None):
            index = choice.get("index")
            told = _text(choice)[: self._left]
            if told and isinstance(index, int):
                self._choices.setdefault(index, []).append(told)
                self._left -= len(told)


def _text(choice: dict[str, Any]) -> str:
    for said in _objects([choice.get("delta"), choice.get("message")]):
        return said["content"] if isinstance(said.get("content"), str) else ""
    return choice["text"] if isinstance(choice.get("text"), str) else ""


def _objects(values: Any) -> Iterable[dict[str, Any]]:
    return [each for each in values or () if isinstance(each, dict)]

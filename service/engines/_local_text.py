"""From tokens to text as they come: whole characters only, nothing of a stop text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

WINDOW_TOKENS = 6
"""Decoded again before each new one: what a token looks like depends on those before it."""
HELD_TOKENS = 3
"""What can be missing its end: a character has at most 4 bytes, and a token at least one."""
UNFINISHED = "\N{REPLACEMENT CHARACTER}"


class Unfolding:
    """The text of one answer, piece by piece."""

    def __init__(self, tokenizer: Any, stops: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._stops = stops
        self._tokens: list[int] = []
        self._told = 0
        """Tokens whose text has been taken."""
        self._held = ""
        """Text that may be the beginning of a stop."""
        self.is_stopped = False

    def push(self, token: int) -> str:
        """Return the text that can be told now that this token has come."""
        self._tokens.append(token)
        if not self._decode(len(self._tokens)).endswith(UNFINISHED):
            return self._release(self._take(len(self._tokens)))
        # The rest of the character may be still to come.
        return self._release(self._take(max(self._told, len(self._tokens) - HELD_TOKENS)))

    def finish(self) -> str:
        """Return what was held back: no stop has come of it."""
        rest = "" if self.is_stopped else self._held + self._take(len(self._tokens))
        self._held = ""
        return self._cut(rest)

    def _take(self, end: int) -> str:
        new = self._decode(end)
        self._told = end
        return new

    def _decode(self, end: int) -> str:
        """Return the text of the tokens from the last that were told to `end`."""
        start = max(0, self._told - WINDOW_TOKENS)
        before = self._text(self._tokens[start : self._told])
        return self._text(self._tokens[start:end])[len(before) :]

    def _text(self, tokens: list[int]) -> str:
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=True)
        return text

    def _release(self, new: str) -> str:
        text = self._cut(self._held + new)
        if self.is_stopped:
            self._held = ""
            return text
        kept = max((_overlap(text, stop) for stop in self._stops), default=0)
        told, self._held = text[: len(text) - kept], text[len(text) - kept :]
        return told

    def _cut(self, text: str) -> str:
        """Return what stands before the first stop."""
        places = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if not places:
            return text
        self.is_stopped = True
        return text[: min(places)]


def _overlap(text: str, stop: str) -> int:
    """Return how many characters at the end of a text are the beginning of a stop."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)

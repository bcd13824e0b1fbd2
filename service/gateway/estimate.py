"""How many tokens a request may be, told from its size alone: no tokenizer on the hot path."""

from __future__ import annotations

from typing import Any
from zlib import crc32

BYTES_PER_TOKEN = 4
"""Of English prose, about; for what nobody counted."""
LONGEST_TOKEN_BYTES = 12
"""On average over a long text no tokenizer in use does better; it gives the fewest tokens."""
TURN_TOKENS = 8
"""For the marks around a message."""
ANSWER_TOKENS = 4096
"""Of an answer where neither request nor route bounds it."""
PREFIX_CHARACTERS = 1024


def prompt_tokens(body: dict[str, Any]) -> int:
    """Return the most tokens that the prompt of an OpenAI request can have: one for each byte."""
    turns = body.get("messages")
    size = sum(map(_size, (turns, body.get("prompt"), body.get("input"), body.get("tools")))) + sum(
        map(_size, (body.get("query"), body.get("documents"), body.get("response_format")))
    )
    marks = TURN_TOKENS * len(turns) if isinstance(turns, list) else 0
    return size + marks + 1


def fewest_tokens(most: int) -> int:
    """Return how few tokens a prompt may have that can have `most`."""
    return most // LONGEST_TOKEN_BYTES


def likely_tokens(most: int) -> int:
    """Return about how many tokens a prompt has that can have `most`."""
    return most // BYTES_PER_TOKEN


def completion_tokens(body: dict[str, Any], *, prompt: int, context: int | None) -> int:
    """Return how many tokens the answers may have at most, over all of `n`."""
    if "input" in body or "documents" in body:
        return 0
    asked = body.get("max_completion_tokens") or body.get("max_tokens")
    if asked is None:
        asked = max(1, context - fewest_tokens(prompt)) if context else ANSWER_TOKENS
    return int(asked) * int(body.get("n") or 1)


def prefix(body: dict[str, Any]) -> int:
    """Return a hash of how the prompt begins: the first two messages, or the text's start."""
    turns = body.get("messages")
    if isinstance(turns, list):
        text = "\0".join(_start(turn.get("content")) for turn in turns[:2])
    else:
        text = _start(body.get("prompt") or body.get("input") or body.get("query"))
    return crc32(text.encode())


def _size(value: Any) -> int:
    """Count the bytes of every string below; a number, being a token's, counts as one."""
    if isinstance(value, str):
        return len(value) if value.isascii() else len(value.encode())
    if isinstance(value, dict):
        return sum(map(_size, value.values())) + sum(map(len, value))
    if isinstance(value, list):
        return sum(map(_size, value))
    return 1


def _start(value: Any) -> str:
    if isinstance(value, str):
        return value[:PREFIX_CHARACTERS]
    if isinstance(value, list):
        return repr(value[:64])[:PREFIX_CHARACTERS]
    return ""

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
IMAGE_TOKENS = 16_384
"""Of an image, whatever it weighs: the most that Qwen2-VL makes of one before it is scaled down."""
FEWEST_MEDIUM_TOKENS = 4
"""Of the smallest image, which is what Qwen2-VL makes of it; OpenAI makes 85, Gemma 3 makes 256."""
IMAGES = frozenset({"image_url", "input_image"})
"""Types of the parts of a message that are one."""
TEXTS = frozenset({"text", "input_text", "output_text", "refusal"})
"""Types of the parts that are read as they are."""
PREFIX_CHARACTERS = 1024
PROMPT = (
    "prompt",
    "suffix",
    "input",
    "tools",
    "functions",
    "query",
    "documents",
    "response_format",
)
"""What a server may read, beside the messages."""


def prompt_tokens(body: dict[str, Any]) -> int:
    """Return the most tokens that the prompt of an OpenAI request can have: one for each byte."""
    turns = body.get("messages")
    size = sum(map(_size, map(body.get, PROMPT)))
    if isinstance(turns, list):
        size += sum(map(_turn_size, turns)) + TURN_TOKENS * len(turns)
    return size + 1


def fewest_tokens(body: dict[str, Any], most: int) -> int:
    """Return how few tokens the prompt of a request may have that can have `most`.

    Only its texts say something by their size: what an image, a sound or a film weighs does not.
    """
    turns = body.get("messages")
    contents = [turn.get("content") for turn in turns] if isinstance(turns, list) else ()
    shown = [part for parts in contents if isinstance(parts, list) for part in parts]
    media = [part for part in shown if isinstance(part, dict) and part.get("type") not in TEXTS]
    for part in media:
        most -= IMAGE_TOKENS if part.get("type") in IMAGES else _size(part)
    return max(0, most) // LONGEST_TOKEN_BYTES + FEWEST_MEDIUM_TOKENS * len(media)


def likely_tokens(most: int) -> int:
    """Return about how many tokens a prompt has that can have `most`."""
    return most // BYTES_PER_TOKEN


def prefix(body: dict[str, Any]) -> int:
    """Return a hash of how the prompt begins: the first two messages, or the text's start."""
    turns = body.get("messages")
    if isinstance(turns, list):
        text = "\0".join(_start(turn.get("content")) for turn in turns[:2])
    else:
        text = _start(body.get("prompt") or body.get("input") or body.get("query"))
    return crc32(text.encode())


def _turn_size(turn: dict[str, Any]) -> int:
    """Count the bytes of a message; of an image they say nothing about its tokens."""
    parts = turn.get("content")
    if not isinstance(parts, list):
        return _size(turn)
    images = [part for part in parts if isinstance(part, dict) and part.get("type") in IMAGES]
    if not images:
        return _size(turn)
    others = [part for part in parts if part not in images]
    return _size({**turn, "content": others}) + IMAGE_TOKENS * len(images)


def _size(value: Any) -> int:
    """Count the bytes of every string below; a number, being a token's, counts as one."""
    if isinstance(value, str):
        return len(value) if value.isascii() else len(value.encode("utf-8", "replace"))
    if isinstance(value, dict):
        return sum(map(_size, value.values())) + sum(map(_size, value))
    if isinstance(value, list):
        return sum(map(_size, value))
    return 1


def _start(value: Any) -> str:
    if isinstance(value, str):
        return value[:PREFIX_CHARACTERS]
    if isinstance(value, list):
        return repr(value[:64])[:PREFIX_CHARACTERS]
    return ""

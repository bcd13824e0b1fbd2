"""What a row says, for telling whether two say the same: normal words, a digest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

from training.examples import Conversation, Sequence


def said(sequences: Iterable[Sequence]) -> str:
    """Return the texts of a row without instructions of the system, which rows have in common."""
    return " ".join(" ".join(_texts(each)) for each in sequences).casefold()


def asked(sequence: Sequence) -> str:
    """Return what an answer is asked for: the prompt, or everything the user says."""
    if isinstance(sequence, Conversation):
        told = (each for each in sequence.messages if each["role"] == "user")
        return " ".join(" ".join(_content(each) for each in told).casefold().split())
    return " ".join(sequence.prompt.casefold().split())


def digest(text: str) -> bytes:
    """Return 16 bytes that stand for a text, whatever its white space."""
    return hashlib.blake2b(" ".join(text.split()).encode(), digest_size=16).digest()


def _texts(sequence: Sequence) -> Iterator[str]:
    if isinstance(sequence, Conversation):
        return (_content(each) for each in sequence.messages if each["role"] != "system")
    return iter((sequence.prompt, sequence.completion))


def _content(message: dict[str, object]) -> str:
    content = message.get("content")
    return content if isinstance(content, str) else str(content or message.get("tool_calls") or "")

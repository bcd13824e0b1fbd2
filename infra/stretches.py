"""Long texts in stretches that a model can read, so that none is cut off and passes unread."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def stretches(tokenizer: Any, text: str, most: int) -> Iterator[str]:
    """Yield a text in stretches of so many tokens, each beginning in the middle of the one before.

    Nothing is left out, and what is said within half a stretch stands in one of them whole.

    Args:
        tokenizer: a fast one of transformers.
        text: nothing is yielded where it has no token.
        most: tokens of a stretch, special ones not counted.
    """
    spans = offsets(tokenizer, text)
    step = max(1, most // 2)
    for first in range(0, max(1, len(spans) - most + step), step):
        part = spans[first : first + most]
        if part:
            yield text[part[0][0] : part[-1][1]]


def offsets(tokenizer: Any, text: str) -> list[tuple[int, int]]:
    """Return where the tokens of a text stand in it, in characters, without special tokens."""
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    return [(first, last) for first, last in encoded["offset_mapping"] if last > first]

"""Puts right-to-left letters that stand in the order of the eye into the order of reading."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

_LETTER = "\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc"
_ANY = re.compile(f"[{_LETTER}]")
# A stretch may run over spaces, marks and punctuation, but begins and ends with letters.
_STRETCH = re.compile(f"[{_LETTER}](?:[{_LETTER}\\s.,;:!?'\"()\u200c-\u200f-]*[{_LETTER}])?")


def has_right_to_left(text: str) -> bool:
    return _ANY.search(text) is not None


def in_reading_order(text: str, x: Callable[[int], float]) -> str:
    """Reverse each stretch of `text` whose letters stand further right the later they come.

    Args:
        text: one line.
        x: the left edge of the character at an index of `text`.
    """

    def put_right(match: re.Match[str]) -> str:
        first, last = _outer_letters(match)
        if first == last or x(first) > x(last):
            return match.group()
        return _reversed(match.group())

    return _STRETCH.sub(put_right, text)


def _outer_letters(match: re.Match[str]) -> tuple[int, int]:
    """Indexes of the first and last letters that take room of their own."""
    spaced = [
        index
        for index, character in enumerate(match.group(), start=match.start())
        if not unicodedata.combining(character) and not character.isspace()
    ]
    return (spaced[0], spaced[-1]) if spaced else (match.start(), match.start())


def _reversed(stretch: str) -> str:
    """Turn round letter by letter; a mark that follows its letter afterwards still does."""
    mirrored = {"(": ")", ")": "("}
    turned = [mirrored.get(character, character) for character in reversed(stretch)]
    result: list[str] = []
    marks: list[str] = []
    before_letter = bool(turned) and unicodedata.combining(turned[0]) != 0
    for character in turned:
        if before_letter and unicodedata.combining(character):
            marks.append(character)
        else:
            result.append(character)
            result += marks
            marks = []
    return "".join(result + marks)

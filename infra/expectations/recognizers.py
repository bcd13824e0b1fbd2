"""Finds and masks what identifies or endangers a person: one row of the table for each kind."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from infra.expectations.check_digits import address, card, iban


class Found(NamedTuple):
    """A stretch of text that identifies someone."""

    kind: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Recognizer:
    """How one kind is found: a pattern that never backtracks far, then a check of its digits."""

    pattern: re.Pattern[str]
    accept: Callable[[str], int] = len
    """How many characters of a match are the real thing; 0 if none."""
    needs: str = ""
    """Text without any of these characters is not searched."""


def find(text: str, kinds: Sequence[str] | None = None) -> list[Found]:
    """Return what is found of some kinds, or of all, in the order of the text."""
    found = [item for kind in kinds or KINDS for item in _find(text, kind)]
    return sorted(found, key=lambda item: (item.start, -item.end))


def mask(text: str) -> str:
    """Return the text with `<email>` and the like in place of what identifies someone."""
    parts, position = [], 0
    for kind, start, end in find(text):
        if start >= position:
            parts += [text[position:start], f"<{kind}>"]
        position = max(position, end)
    return "".join([*parts, text[position:]])


def _find(text: str, kind: str) -> Iterator[Found]:
    recognizer = RECOGNIZERS[kind]
    if recognizer.needs and not any(letter in text for letter in recognizer.needs):
        return
    position = 0
    while match := recognizer.pattern.search(text, position):
        length = recognizer.accept(match.group())
        if length:
            yield Found(kind, match.start(), match.start() + length)
        # What was refused may begin too early: a number before the card's own.
        position = match.start() + max(1, length)


# Every repetition is bounded, so that hostile text costs no more than its length times a constant.
RECOGNIZERS: Mapping[str, Recognizer] = {
    "email": Recognizer(
        re.compile(r"(?<![\w.+%-])[\w.+%-]{1,64}@(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24}(?![\w-])"),
        needs="@",
    ),
    "phone": Recognizer(
        re.compile(
            r"(?<![\w+])\+\d(?:[ .()/-]{0,2}\d){7,14}(?!\d)"
            r"|(?<![\w.(+-])(?:\(\d{3}\) ?|\d{3}[-.])\d{3}[-.]\d{4}(?![\w-])"
            r"|(?<![\w.,+-])0\d(?:[ .]\d\d){4}(?![\w-])"
            r"|(?<![\w.,+-])0\d{2,4}[ /-]\d{3,4}[ -]?\d{3,6}(?![\w-])"
        ),
    ),
    "card": Recognizer(re.compile(r"(?<!\d)(?:\d[ -]?){12,18}\d(?!\d)", re.ASCII), card),
    "iban": Recognizer(re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]){11,30}"), iban),
    "ip": Recognizer(
        re.compile(
            r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?!\w|\.\d)"
            r"|(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:])",
            re.ASCII,
        ),
        address,
        needs=".:",
    ),
    "mac": Recognizer(
        re.compile(
            r"(?<![\w:-])[0-9A-Fa-f]{2}([:-])(?:[0-9A-Fa-f]{2}\1){4}[0-9A-Fa-f]{2}(?![\w:-])"
        ),
        needs=":-",
    ),
    "ssn": Recognizer(
        re.compile(
            r"(?<![\w-])(?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\w-])", re.ASCII
        ),
        needs="-",
    ),
    "secret": Recognizer(
        re.compile(
            r"-----BEGIN [A-Z ]{0,20}PRIVATE KEY-----"
            r"|\bAKIA[0-9A-Z]{16}\b"
            r"|\bgh[pousr]_[A-Za-z0-9]{36,255}"
            r"|\b(?:sk-|rgs_|xox[baprs]-|hf_)[A-Za-z0-9_-]{20,255}"
            r"|\beyJ[\w-]{10,500}\.eyJ[\w-]{10,2000}\.[\w-]{10,1000}"
        ),
        needs="-_.A",
    ),
}
KINDS = tuple(RECOGNIZERS)

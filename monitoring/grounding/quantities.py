"""Numbers and dates of a text, made comparable however they are written."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

_MAGNITUDES = {"hundred": 1e2, "thousand": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12}
_TEENS = """
    two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
    seventeen eighteen nineteen twenty
"""
_TENS = "thirty forty fifty sixty seventy eighty ninety"
_WORDS = {word: float(value) for value, word in enumerate(_TEENS.split(), 2)} | {
    word: 10.0 * value for value, word in enumerate(_TENS.split(), 3)
}
_MONTH_NAMES = """
    january jan|february feb|march mar|april apr|may|june jun|july jul|august aug|september sep sept
    |october oct|november nov|december dec
"""
_MONTHS = {
    name: float(number)
    for number, group in enumerate(_MONTH_NAMES.split("|"), 1)
    for name in group.split()
}
_MONTH = "|".join(sorted(_MONTHS, key=len, reverse=True))
_WORD = "|".join(sorted(_WORDS, key=len, reverse=True))
_SCALE = rf"(?:\s(?P<{{}}>{'|'.join(_MAGNITUDES)})\b)?"
_QUANTITY = re.compile(
    rf"""(?P<iso>\b\d{{4}}-\d{{2}}-\d{{2}}\b)
    |(?P<decade>\b\d{{3}}0s\b)
    |(?P<digits>\d+(?:[.,]\d+)*){_SCALE.format("scale")}
    |\b(?P<month>{_MONTH})\b(?=\.?\s+\d)
    |(?<=\d\s)(?P<after>{_MONTH})\b
    |\b(?P<word>{_WORD})(?:-(?P<unit>one|two|three|four|five|six|seven|eight|nine))?\b
     {_SCALE.format("times")}""",
    re.VERBOSE | re.IGNORECASE,
)
_GROUPED = re.compile(r"\d{1,3}(?:[.,]\d{3})+")
_YEARS = range(1000, 2101)
SHARE_OF_ROUNDING = 1_000
"""Numbers from here on may be rounded to the digits that are written, but for zeros."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number, a year, or a month."""

    kind: Literal["number", "date"]
    values: frozenset[float]
    """The ways to read it: `1.200` is one thousand two hundred, or one and a fifth."""
    text: str
    start: int
    end: int
    is_decade: bool = False
    is_month: bool = False

    def is_among(self, others: Iterable[Quantity]) -> bool:
        """Whether one of others is the same, or what this one rounds."""
        return any(self._equals(other) for other in others)

    def _equals(self, other: Quantity) -> bool:
        if self.is_month != other.is_month:
            return False
        if self.is_decade:
            (first,) = self.values
            return any(first <= value < first + 10 for value in other.values)
        if self.values & other.values:
            return True
        if "date" in {self.kind, other.kind}:  # a year is not rounded
            return False
        return any(_rounds(mine, theirs) for mine in self.values for theirs in other.values)


def quantities(text: str) -> list[Quantity]:
    """Return the numbers and dates of a text, in order.

    Digits of any script are read; words are English. "One" is no number here: it is a pronoun.
    """
    text = _western(text)
    found: list[Quantity] = []
    for match in _QUANTITY.finditer(text):
        found += _read(match)
    return found


def _read(match: re.Match[str]) -> list[Quantity]:
    start, end = match.span()
    text = match.group()
    if match["iso"]:
        year, number, day = map(float, text.split("-"))
        return [
            Quantity("date", frozenset({year}), text[:4], start, start + 4),
            Quantity("date", frozenset({number}), text[5:7], start + 5, start + 7, is_month=True),
            Quantity("date", frozenset({day}), text[8:], start + 8, end),
        ]
    if match["decade"]:
        values = frozenset({float(text[:-1])})
        return [Quantity("date", values, text, start, end, is_decade=True)]
    if month := match["month"] or match["after"]:
        values = frozenset({_MONTHS[month.lower()]})
        return [Quantity("date", values, text, start, end, is_month=True)]
    if match["digits"]:
        scale = _MAGNITUDES.get((match["scale"] or "").lower(), 1.0)
        values = frozenset(value * scale for value in _readings(match["digits"]))
        is_year = text.isdigit() and len(text) == 4 and int(text) in _YEARS
        return [Quantity("date" if is_year else "number", values, text, start, end)]
    unit = (match["unit"] or "").lower()
    value = _WORDS[match["word"].lower()] + (1.0 if unit == "one" else _WORDS.get(unit, 0.0))
    value *= _MAGNITUDES.get((match["times"] or "").lower(), 1.0)
    return [Quantity("number", frozenset({value}), text, start, end)]


def _readings(digits: str) -> set[float]:
    """Return what digits can mean where it is open whether a comma or a point is the decimal."""
    if digits.isdigit():
        return {float(digits[:300])}
    readings = set()
    if _GROUPED.fullmatch(digits):
        readings.add(float(re.sub("[.,]", "", digits)[:300]))
    if len(parts := re.split("[.,]", digits)) == 2:
        readings.add(float(f"{parts[0][:300]}.{parts[1][:300]}"))
    elif not readings:
        head, _, tail = digits.replace(",", ".").rpartition(".")
        readings.add(float(f"{head.replace('.', '')[:300]}.{tail[:300]}"))
    return readings


def _rounds(mine: float, theirs: float) -> bool:
    """Whether a number is another one to as many digits as it has before its zeros."""
    if mine < SHARE_OF_ROUNDING or not mine.is_integer():
        return False
    digits = len(f"{mine:.0f}".rstrip("0"))
    if digits < 2 or theirs <= 0:
        return False
    return float(f"{theirs:.{digits - 1}e}") == mine


def _western(text: str) -> str:
    """Return a text with the digits of other scripts as 0 to 9; lengths stay."""
    if text.isascii():
        return text
    return "".join(
        str(unicodedata.digit(each)) if each.isdecimal() and not each.isascii() else each
        for each in text
    )

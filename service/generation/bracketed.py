"""Numbers in brackets: the ways in which models cite, and the beginnings of each."""

from __future__ import annotations

import re

BRACKETS = "[]［］【】〔〕\\"
"""What stands around numbers, also where a writer of Markdown escapes it."""
_OPEN, _CLOSE = r"\\?[\[［【〔]", r"\\?[\]］】〕]"
_BETWEEN = "[ ,;&，；、–—-]"
_NUMBERS = rf"\d{{1,3}}(?:{_BETWEEN}{{1,4}}\d{{1,3}}){{0,9}}"
_WORDS = ("sources", "passages", "documents")
_WORD = "|".join(f"{word}?" for word in _WORDS)
# What some models were taught to add: 【2†L10-L12】, 【4:0†source】.
_TAIL = r"(?::\d{1,3})?(?:†[^\[\]【】\n]{0,40})?"
MARKER = re.compile(
    rf"{_OPEN} ?(?:\^|(?:{_WORD}) ?)?(?P<numbers>{_NUMBERS}){_TAIL}{_BETWEEN}{{0,4}}{_CLOSE}",
    re.IGNORECASE,
)
"""[2], [1, 3], [1-3], [^2], [source 2], ［2］, 【2】 and the like."""
LONGEST = 160
"""Characters of a marker, rather too many."""
_MOST = 10
"""Numbers of a range after its first."""


def _begun(word: str) -> str:
    """Match any beginning of a word, the whole too."""
    return "".join(f"(?:{letter}" for letter in word) + ")?" * len(word)


BEGUN = re.compile(
    rf"{_OPEN} ?(?:\^|(?:{'|'.join(map(_begun, _WORDS))}) ?)?"
    rf"(?:{_NUMBERS}(?::\d{{0,3}}|(?::\d{{1,3}})?†[^\[\]【】\n]{{0,40}})?{_BETWEEN}{{0,4}}\\?)?\Z"
    r"|\\\Z",
    re.IGNORECASE,
)
"""The end of a text that the next piece may turn into a marker."""


def unmarked(told: str, text: str) -> str:
    """Return `text` so that it completes no marker that `told` begins.

    Where something between the two was taken out, what is left of both could read as one.
    """
    tail = told[-LONGEST:]
    if not any(bracket in tail for bracket in BRACKETS):
        return text
    while (match := _across(tail, text)) is not None:
        at = match.end() - 1 - len(tail)
        text = text[:at] + text[at + 1 :]
    return text


def _across(tail: str, text: str) -> re.Match[str] | None:
    found = MARKER.finditer(tail + text[:LONGEST])
    return next((one for one in found if one.start() < len(tail) < one.end()), None)


def numbers_of(said: str) -> tuple[int, ...]:
    """The numbers of a marker, each once; of a range no more than one marker can hold."""
    numbers: list[int] = []
    for part in re.split(r"[,;&，；、]|(?<=\d) +(?=\d)", said):
        ends = [int(number) for number in re.findall(r"\d+", part)]
        if not ends:
            continue
        first, last = ends[0], ends[-1]
        numbers += [first, last] if last < first else range(first, min(last, first + _MOST) + 1)
    return tuple(dict.fromkeys(numbers))

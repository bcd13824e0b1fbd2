"""Names in a text: words with a capital, where grammar does not ask for one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from infra.sentences import sentence_spans
from monitoring.grounding.terms import content_terms

_WORD = re.compile(r"[^\W\d_]+(?:[-'’.&][^\W\d_]+)*")
_GLUE = re.compile(r"\s+(?:(?:of|de|la|le|van|von|der|den|du|da|di|al|bin|the)\s+)?\Z")
MOST_CAPITALS = 0.35
"""Of what stands within sentences: beyond it (German, titles) a capital does not make a name."""
MIN_WORDS_TO_TELL = 6
_NO_NAMES = frozenset(
    """A An The This That These Those It He She They We I You His Her Its Their Our In On At By For
    From With And But Or So If As To Of Is Are Was Were There Here However When While After Before
    Although Because Also Both All Some Many Most Each Every No Not Yes What Which Who Where Why How
    Mr Mrs Ms Dr Monday Tuesday Wednesday Thursday Friday Saturday Sunday January February March
    April May June July August September October November December""".split()  # noqa: SIM905
)


@dataclass(frozen=True, slots=True)
class Name:
    """One name, of one or several words."""

    text: str
    start: int
    end: int
    terms: tuple[str, ...]


def names(text: str) -> list[Name]:
    """Return the names of a text, in order; none where capitals do not tell them.

    A word that opens a sentence is one only where a second capital says so.
    """
    openings = {_opening(text, start) for start, _ in sentence_spans(text)}
    words = list(_WORD.finditer(text))
    within = [each for each in words if each.start() not in openings]
    if len(within) >= MIN_WORDS_TO_TELL and _runs(within) > MOST_CAPITALS:
        return []
    found: list[tuple[int, int]] = []
    for word in words:
        if not _is_name(word.group(), opens=word.start() in openings):
            continue
        if found and found[-1][1] < word.start() and _GLUE.match(text[found[-1][1] : word.start()]):
            found[-1] = (found[-1][0], word.end())
        else:
            found.append((word.start(), word.end()))
    named = [Name(text[a:b], a, b, tuple(content_terms(text[a:b]))) for a, b in found]
    return [each for each in named if each.terms]


def _runs(words: Sequence[re.Match[str]]) -> float:
    """The share of runs of capitals among words and such runs: a name of three words is one."""
    is_capital = [each.group()[0].isupper() for each in words]
    runs = sum(
        now and not before for before, now in zip([False, *is_capital], is_capital, strict=False)
    )
    return runs / (runs + is_capital.count(False))


def _opening(text: str, start: int) -> int:
    """Return where the first word from here on begins."""
    match = _WORD.search(text, start)
    return match.start() if match else start


def _is_name(word: str, *, opens: bool) -> bool:
    if not word[0].isupper() or word in _NO_NAMES:
        return False
    return not opens or any(letter.isupper() for letter in word[1:])

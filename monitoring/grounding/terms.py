"""The words that carry meaning, cut to stems; scripts without spaces in pairs of characters."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from infra.words import UNSPACED

STEM_CHARACTERS = 6
"""Truncation: longer words that begin alike are taken for forms of one, in any language."""
_TOKEN = re.compile(rf"[{UNSPACED}]+|\d+(?:[.,]\d+)*|[^\W\d_{UNSPACED}]+")
_ASCII_TOKEN = re.compile(r"\d+(?:[.,]\d+)*|[a-z]+")
_IS_UNSPACED = re.compile(f"[{UNSPACED}]")
_STOP_WORDS = """
    a about also an and any are as at be because been but by can could did do does for from had
    has have he her hers him his how i if in into is it its itself just may me might my of
    on one or other our out over own she should so some such than that the their them then there
    these they this those through to too up upon us was we were what when where whether which while
    who whom whose will with within would you your
    aber als am an auch auf aus bei das dem den der des die du ein eine einem einen einer eines er
    es für hat ich ihr im in ist mit nach oder sich sie sind so um und uns vom von vor war waren wie
    wir wird zu zum zur
    au aux avec ce ces cette dans de des du elle en est et eux il ils la le les leur lui ou par pas
    pour que qui sa se ses son sont sur un une
    como con de del el ella en entre era es esta este fue ha la las lo los más o para pero por que
    se ser si sin sobre son su sus un una y
"""


@dataclass(frozen=True, slots=True)
class Rarity:
    """How much a term says: what is in every text says little."""

    weights: Mapping[str, float]
    """Of frequent terms, above 0 and below 1."""

    def of(self, term: str) -> float:
        """Return the weight of a term; 1 for one that is rare, or of another language."""
        return self.weights.get(term, 1.0)

    def total(self, terms: Iterable[str]) -> float:
        return sum(self.weights.get(term, 1.0) for term in terms)


def content_terms(text: str) -> list[str]:
    """Return the terms in reading order, without those that every sentence has.

    >>> content_terms("The Committees met in 1,200 rooms.")
    ['commit', 'met', '1200', 'room']
    >>> content_terms("東京タワー")
    ['東京', '京タ', 'タワ', 'ワー']
    """
    text = plain(text)
    if text.isascii():  # most sentences are, and need no look at their scripts
        return [stem(token) for token in _ASCII_TOKEN.findall(text) if token not in _STOP]
    found: list[str] = []
    for match in _TOKEN.finditer(text):
        token = match.group()
        if _IS_UNSPACED.match(token):
            found += [token[at : at + 2] for at in range(max(1, len(token) - 1))]
        elif token not in _STOP:
            found.append(stem(token))
    return found


def plain(text: str) -> str:
    """Return a text in one form of each character, in lower case, without accents on letters."""
    if text.isascii():
        return text.lower()
    parts = unicodedata.normalize("NFKD", text.casefold())
    bare = "".join(each for each in parts if not unicodedata.combining(each))
    return unicodedata.normalize("NFC", bare)


@lru_cache(maxsize=50_000)
def stem(word: str) -> str:
    """Return the first letters of a word, or the digits of a number."""
    if word[0].isdigit():
        return word.replace(",", "")
    if len(word) > 3 and word.endswith("s") and not word.endswith("ss"):
        word = word[:-1]
    return word[:STEM_CHARACTERS]


_STOP = frozenset(plain(_STOP_WORDS).split())

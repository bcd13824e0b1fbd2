"""From text to search terms: normalised, lower case, unaccented, stemmed; bigrams for CJK."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable

from tantivy import Filter, TextAnalyzer, TextAnalyzerBuilder, Tokenizer

VERSION = 1
"""Raised when the same text gives other terms, so that older checkpoints are not used."""
HEADING_WEIGHT = 2
"""Times a heading counts; nDCG@10 of adi, cranfield and scifact rises by .005 to .024 over once."""
MAX_TERMS = 64
"""Of a longer question the rarest terms are asked for; the others say next to nothing."""
_LONGEST_TERM_BYTES = 128
_NORMALISED_AT_ONCE = 1_000
"""Characters; sorting a long run of combining marks takes time that grows with its square."""

_SURROGATES = re.compile("[\ud800-\udfff]")
_UNSPACED = re.compile(
    "["
    "\u3005-\u3007\u3040-\u30fa\u30fc-\u30ff\u31f0-\u31ff"  # Japanese
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
    "\uac00-\ud7a3"  # Korean: spaced, but particles cling to their word
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ecd"  # Thai, Lao
    "\u1000-\u1049\u1780-\u17d3"  # Burmese, Khmer
    "]+"
)
_INVISIBLE = "\u00ad\u200b\u200c\u200d\u2060\ufeff"
"""Soft hyphen, joiners and marks of width zero: they stand inside words."""


def analyzer() -> TextAnalyzer:
    """Build the analyzer that texts and questions go through after `searchable`."""
    return (
        TextAnalyzerBuilder(Tokenizer.simple())
        .filter(Filter.remove_long(_LONGEST_TERM_BYTES))
        .filter(Filter.lowercase())
        .filter(Filter.ascii_fold())
        .filter(Filter.stemmer("english"))
        .build()
    )


def searchable(text: str) -> str:
    """Rewrite a chunk's text so that a tokenizer that splits at non-letters finds its words.

    Scripts written without spaces become single characters and overlapping pairs.
    """
    if text.isascii():
        return text
    return _UNSPACED.sub(_singles_and_pairs, _normalised(text))


def body(heading: str, text: str) -> str:
    """Return what is indexed of a chunk: its text, and its heading with more weight."""
    return searchable("\n".join([*[heading] * HEADING_WEIGHT, text]) if heading else text)


def query_terms(text: str, analyze: Callable[[str], list[str]]) -> list[str]:
    """Return the distinct terms of a question, in order of appearance."""
    if not text.isascii():
        text = _UNSPACED.sub(_pairs, _normalised(text))
    return list(dict.fromkeys(analyze(text)))


def rarest(terms: Iterable[str], frequency: Callable[[str], int]) -> list[str]:
    """Return the `MAX_TERMS` terms that the fewest chunks hold, without those that none holds."""
    counted = sorted((frequency(term), term) for term in terms)
    return [term for count, term in counted if count][:MAX_TERMS]


def _normalised(text: str) -> str:
    text = _SURROGATES.sub(" ", text)
    text = "".join(
        unicodedata.normalize("NFKC", text[start : start + _NORMALISED_AT_ONCE])
        for start in range(0, len(text), _NORMALISED_AT_ONCE)
    )
    # The tokenizer takes combining marks (virama, tone marks, harakat) for the end of a word.
    for character in set(text):
        if unicodedata.combining(character) or character in _INVISIBLE:
            text = text.replace(character, "")
    return text


def _singles_and_pairs(run: re.Match[str]) -> str:
    characters = run.group()
    return " ".join(["", *characters, *_overlapping(characters), ""])


def _pairs(run: re.Match[str]) -> str:
    characters = run.group()
    return " ".join(["", *(_overlapping(characters) or [characters]), ""])


def _overlapping(characters: str) -> list[str]:
    return [first + second for first, second in zip(characters, characters[1:], strict=False)]

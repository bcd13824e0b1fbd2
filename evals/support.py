"""Support: how much of a claim the texts beside it carry, by words, numbers, denial and meaning."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from evals.context import Embed
from infra.sentences import sentence_spans
from infra.words import NUMBER, words

NUMBER_MISSING = 0.5
DENIAL_DIFFERS = 0.7
"""What is left of the support then; set by hand, fitted to nothing."""
STEM_CHARACTERS = 6
"""Truncation: longer words that begin alike are taken for forms of one."""
SHORT = 3
"""Words of no more letters carry no claim, but for numbers and other scripts; of `overlap`."""
_DENIES = re.compile(
    r"\b(?:not|no|never|none|neither|nor|without|cannot|nicht|kein\w*)\b|n['’]t\b|不|没",
    re.IGNORECASE,
)
_STOP = frozenset(
    """a about an and are as at be been but by can could did do does for from had has have he her
    his how i if in into is it its may more most of on one or other our she should so some such
    than that the their them then there these they this those to up was we were what when where
    which while who will with would you your""".split()  # noqa: SIM905
)


@dataclass(frozen=True, slots=True)
class Supported:
    """A claim, how much of it is carried, and by which sentence."""

    claim: str
    support: float
    """From 0 to 1; it ranks, and is no probability."""
    evidence: str = ""


def supported(claims: Sequence[str], texts: Sequence[str], embed: Embed | None) -> list[Supported]:
    """Hold each claim against the sentence, or two neighbours, that carry most of it.

    Support is the share of its content words there, less where a number is missing or only one
    of the two denies; with an embedder, the mean of this and the cosine.

    Args:
        claims: sentences.
        texts: passages.
        embed: texts to unit vectors, or None.
    """
    single = [text[start:end] for text in texts for start, end in sentence_spans(text)]
    pairs = _neighbours(texts)
    if not single or not claims:
        return [Supported(claim, 0.0) for claim in claims]
    spans = [*single, *(text for _, text in pairs)]
    held = [_terms(span) for span in spans]
    cosines = None
    if embed is not None:
        vectors = np.asarray(embed([*claims, *single]), dtype=np.float64)
        near = np.clip(vectors[: len(claims)] @ vectors[len(claims) :].T, 0.0, 1.0)
        # Two neighbours are as near as the nearer: embedding them too would take thrice the time.
        both = [np.maximum(near[:, at], near[:, at + 1]) for at, _ in pairs]
        cosines = np.column_stack([near, *both])
    return [
        _best(claim, spans, held, None if cosines is None else cosines[place])
        for place, claim in enumerate(claims)
    ]


def overlap(claim: str, evidence: Iterable[str]) -> float:
    """Return the share of a claim's different longer words that texts hold; 1 if it has none.

    >>> overlap("The bridge is 48 metres long", ["a bridge of 48 metres"])
    0.75
    """
    claimed = _long(claim)
    held = {word for text in evidence for word in _long(text)}
    return len(claimed & held) / len(claimed) if claimed else 1.0


def _best(
    claim: str,
    spans: Sequence[str],
    held: Sequence[frozenset[str]],
    cosines: npt.NDArray[np.float64] | None,
) -> Supported:
    claimed = _terms(claim)
    if not claimed:
        return Supported(claim, 1.0)
    shares = np.array([len(claimed & terms) / len(claimed) for terms in held])
    scores = shares if cosines is None else (shares + cosines) / 2
    best = int(scores.argmax())
    numbers = set(NUMBER.findall(claim))
    factor = NUMBER_MISSING if numbers - set(NUMBER.findall(spans[best])) else 1.0
    if bool(_DENIES.search(claim)) != bool(_DENIES.search(spans[best])):
        factor *= DENIAL_DIFFERS
    return Supported(claim, float(scores[best]) * factor, spans[best])


def _neighbours(texts: Sequence[str]) -> list[tuple[int, str]]:
    """Return pairs of sentences, which share what one leaves out, and the place of the first."""
    found: list[tuple[int, str]] = []
    at = 0
    for text in texts:
        places = sentence_spans(text)
        for number, (one, two) in enumerate(zip(places, places[1:], strict=False), at):
            found.append((number, text[one[0] : two[1]]))
        at += len(places)
    return found


def _terms(text: str) -> frozenset[str]:
    found = words(text)
    return frozenset(word[:STEM_CHARACTERS] for word in found if word not in _STOP)


def _long(text: str) -> set[str]:
    found = words(text)
    return {word for word in found if len(word) > SHORT or not word.isascii() or word[0].isdigit()}

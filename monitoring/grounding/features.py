"""What a claim and a piece of text have in common and where they part: the model's columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from monitoring.grounding import polarity
from monitoring.grounding.evidence import Evidence
from monitoring.grounding.quantities import Quantity, quantities
from monitoring.grounding.terms import Rarity, content_terms, plain

Columns: TypeAlias = NDArray[np.float64]
"""`(pieces, features)`; nan is unknown."""

SIGNS: Mapping[str, Literal[-1, 1]] = {
    "window": -1,
    "piece": -1,
    "anywhere": -1,
    "letters": -1,
    "contrary": 1,
    "turned": 1,
    "numbers_swapped": 1,
}
"""The features, and whether risk rises (1) or falls (-1) with each; the model is held to it.

`window`, `piece` and `anywhere` are the shares of the claim's terms, by rarity, that the best
sentence or two neighbours hold (the window), the piece around them, and all texts. `letters` is the
share of its runs of five characters in the window. `contrary` says that the window has an opposite
of a term that it lacks, `turned` which share of common terms one of the two denies.
`numbers_swapped` is how much of the rest of the claim the window holds, where it lacks a number or
date of it.

No length is among them, nor anything else that tells who wrote a claim, not whether it holds.
Cosines of embeddings, names, longer runs of words and their order did not help on data that the
model was not fitted on; `docs/explanation/groundedness.md` says by how much.
"""
NAMES = tuple(SIGNS)
MOST_PIECES = 5
"""Looked at closely, those that share most with the claim."""
WIDER_COSTS = 0.05
"""Two neighbours must hold this much more than one sentence."""
LETTERS = 5


@dataclass(frozen=True, slots=True)
class Claim:
    """A sentence of an answer, read once."""

    terms: tuple[str, ...]
    """Each once."""
    weights: NDArray[np.float64]
    """Of the terms, by rarity."""
    quantities: tuple[Quantity, ...]
    denied: Mapping[str, frozenset[bool]]
    letters: frozenset[str]

    @classmethod
    def of(cls, text: str, rarity: Rarity) -> Claim:
        terms = tuple(dict.fromkeys(content_terms(text)))
        return cls(
            terms=terms,
            weights=np.array([rarity.of(term) for term in terms]),
            quantities=tuple(quantities(text)),
            denied=polarity.denied(text),
            letters=_letters(text),
        )


@dataclass(frozen=True, slots=True)
class Window:
    """The sentence, or two neighbours, of a piece that hold most of a claim."""

    piece: int
    first: int
    last: int
    share: float


def measure(claim: Claim, evidence: Evidence) -> tuple[list[Window], Columns]:
    """Return the best windows, best first, and a row of features for each; none without texts."""
    windows = _windows(claim, evidence)
    anywhere = _share(claim, [term in evidence.everything for term in claim.terms])
    rows = [_row(claim, evidence, window, anywhere) for window in windows]
    columns = np.array(rows, dtype=np.float64).reshape(len(rows), len(NAMES))
    return windows, columns


def _windows(claim: Claim, evidence: Evidence) -> list[Window]:
    held = _held(claim, evidence)
    total = claim.weights.sum() or 1.0
    single = claim.weights @ held / total
    both = np.full_like(single, -1.0)
    if len(single) > 1:
        joined = claim.weights @ (held[:, :-1] | held[:, 1:]) / total
        both[:-1] = np.where(evidence.joins, joined - WIDER_COSTS, -1.0)
    best = np.maximum(single, both)
    found = []
    for number, piece in enumerate(evidence.pieces):
        at = piece.first + int(best[piece.first : piece.last].argmax())
        is_wide = both[at] > single[at]
        share = both[at] + WIDER_COSTS if is_wide else single[at]
        found.append(Window(number, at, at + int(is_wide), float(share)))
    return sorted(found, key=lambda window: -window.share)[:MOST_PIECES]


def _held(claim: Claim, evidence: Evidence) -> NDArray[np.bool_]:
    """`(terms, sentences)`: which sentence holds which term of the claim."""
    held = np.zeros((len(claim.terms), len(evidence.spans)), dtype=np.bool_)
    for row, term in enumerate(claim.terms):
        if (places := evidence.places.get(term)) is not None:
            held[row, places] = True
    return held


def _row(claim: Claim, evidence: Evidence, window: Window, anywhere: float) -> list[float]:
    piece = evidence.pieces[window.piece]
    above = evidence.sources[piece.source].above
    text = evidence.text(window.first, window.last)
    held = frozenset(content_terms(text))
    values = {
        "window": window.share,
        "piece": _share(claim, [term in piece.terms for term in claim.terms]),
        "anywhere": anywhere,
        "letters": _overlap(claim.letters, _letters(text)),
        "contrary": float(bool(polarity.contradicted(frozenset(claim.terms), held))),
        "turned": polarity.turned(claim.denied, polarity.denied(text)),
        "numbers_swapped": _swapped(claim, f"{text}\n{above}"),
    }
    return [values[name] for name in NAMES]


def _share(claim: Claim, holds: Sequence[bool]) -> float:
    total = float(claim.weights.sum())
    return float(claim.weights @ np.array(holds, dtype=np.float64)) / total if total else 1.0


def _swapped(claim: Claim, text: str) -> float:
    """The share held of terms that are no digits, if a number or date is not; else 0."""
    if not claim.quantities:
        return 0.0
    held = quantities(text)
    if all(each.is_among(held) for each in claim.quantities):
        return 0.0
    known = frozenset(content_terms(text))
    rest = np.array([not term[0].isdigit() for term in claim.terms], dtype=np.float64)
    total = float(claim.weights @ rest)
    return (
        float(claim.weights @ (rest * [term in known for term in claim.terms]) / total)
        if total
        else 1.0
    )


def _letters(text: str) -> frozenset[str]:
    joined = f" {' '.join(plain(text).split())} "
    return frozenset(joined[at : at + LETTERS] for at in range(len(joined) - LETTERS + 1))


def _overlap(mine: frozenset[str], theirs: frozenset[str]) -> float:
    return len(mine & theirs) / len(mine) if mine else 1.0

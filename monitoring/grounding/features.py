"""What a claim and a piece of text have in common and where they part: the model's columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from monitoring.grounding import polarity
from monitoring.grounding.evidence import Evidence
from monitoring.grounding.names import Name, names
from monitoring.grounding.quantities import Quantity, quantities
from monitoring.grounding.terms import Rarity, content_terms, plain

Columns: TypeAlias = NDArray[np.float64]
"""`(pieces, features)`; nan is unknown."""

SIGNS: Mapping[str, Literal[-1, 1]] = {
    "window": -1,
    "pairs": -1,
    "triples": -1,
    "order": -1,
    "letters": -1,
    "letters_near": -1,
    "piece": -1,
    "anywhere": -1,
    "missing": 1,
    "lost": 1,
    "numbers_missing": 1,
    "numbers_lost": 1,
    "names_missing": 1,
    "names_lost": 1,
    "numbers_swapped": 1,
    "names_swapped": 1,
    "denial": 1,
    "turned": 1,
    "contrary": 1,
    "absolute": 1,
}
"""The features, and whether risk rises (1) or falls (-1) with each; the model is held to it.

Of the best sentence or two neighbours of a piece (the window): `window`, the share of the claim's
terms that it holds, by rarity; `pairs`, `triples`, of two and three in a row; `order`, of
neighbours that keep their order; `letters`, of runs of five characters; `missing`, the rarest term
that it lacks; `numbers_missing`, `names_missing`, shares; `denial`, whether one of the two denies;
`contrary`, opposites; `absolute`, words such as "only" that it lacks. `piece` and `anywhere` are
`window` for the whole piece and for all texts, `lost` and `*_lost` are `missing` for all texts.
No length is among them, nor
anything else that tells who wrote a claim rather than whether it holds.
"""
NAMES = tuple(SIGNS)
MOST_PIECES = 8
"""Looked at closely, those that share most with the claim."""
WIDER_COSTS = 0.05
"""Two neighbours must hold this much more than one sentence."""
LETTERS = 5


@dataclass(frozen=True, slots=True)
class Claim:
    """A sentence of an answer, read once."""

    text: str
    terms: tuple[str, ...]
    weights: NDArray[np.float64]
    """Of each distinct term."""
    quantities: tuple[Quantity, ...]
    names: tuple[Name, ...]
    denies: bool
    denied: Mapping[str, frozenset[bool]]
    absolutes: frozenset[str]
    letters: frozenset[str]
    vector: NDArray[np.floating] | None = None
    distinct: tuple[str, ...] = field(default=())

    @classmethod
    def of(cls, text: str, rarity: Rarity, *, vector: NDArray[np.floating] | None = None) -> Claim:
        terms = tuple(content_terms(text))
        distinct = tuple(dict.fromkeys(terms))
        return cls(
            text=text,
            terms=terms,
            weights=np.array([rarity.of(term) for term in distinct]),
            quantities=tuple(quantities(text)),
            names=tuple(names(text)),
            denies=polarity.denies(text),
            denied=polarity.denied(text),
            absolutes=polarity.absolutes(text),
            letters=_letters(text),
            vector=vector,
            distinct=distinct,
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
    held = _held(claim, evidence)
    windows = _windows(claim, evidence, held)
    anywhere = _anywhere(claim, evidence)
    rows = [_row(claim, evidence, window, anywhere) for window in windows]
    columns = np.array(rows, dtype=np.float64).reshape(len(rows), len(NAMES))
    return windows, columns


def _held(claim: Claim, evidence: Evidence) -> NDArray[np.bool_]:
    """`(terms, sentences)`: which sentence holds which term of the claim."""
    held = np.zeros((len(claim.distinct), len(evidence.spans)), dtype=np.bool_)
    for row, term in enumerate(claim.distinct):
        if (places := evidence.places.get(term)) is not None:
            held[row, places] = True
    return held


def _windows(claim: Claim, evidence: Evidence, held: NDArray[np.bool_]) -> list[Window]:
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


def _anywhere(claim: Claim, evidence: Evidence) -> dict[str, float]:
    lost = [term not in evidence.everything for term in claim.distinct]
    return {
        "anywhere": _share(claim, [not each for each in lost]),
        "lost": _most(claim, lost),
        "numbers_lost": _part(
            claim.quantities, lambda each: not each.is_among(evidence.quantities)
        ),
        "names_lost": _part(
            claim.names, lambda each: not evidence.everything.issuperset(each.terms)
        ),
    }


def _row(
    claim: Claim, evidence: Evidence, window: Window, anywhere: Mapping[str, float]
) -> list[float]:
    piece = evidence.pieces[window.piece]
    source = evidence.sources[piece.source]
    text = evidence.text(window.first, window.last)
    terms = [term for at in range(window.first, window.last + 1) for term in evidence.terms[at]]
    held = frozenset(terms)
    near = held.union(content_terms(source.above))
    found = quantities(f"{text}\n{source.above}") if claim.quantities else []
    rest = _rest(claim, near)
    amiss = any(not each.is_among(found) for each in claim.quantities)
    strange = any(
        not evidence.everything.issuperset(each.terms)
        for each in claim.names
        if any(
            word[:1].isupper() and word[1:].islower() and len(word) > 3
            for word in each.text.split()
        )
    )
    values = {
        **anywhere,
        "numbers_swapped": amiss * rest,
        "names_swapped": strange * rest,
        "window": window.share,
        "pairs": _runs(claim.terms, terms, 2),
        "triples": _runs(claim.terms, terms, 3),
        "order": _order(claim.terms, terms),
        "letters": _overlap(claim.letters, _letters(text)),
        "letters_near": _overlap(
            claim.letters, _letters(f"{source.above} {evidence.text(piece.first, piece.last - 1)}")
        ),
        "piece": _share(claim, [term in piece.terms for term in claim.distinct]),
        "missing": _most(claim, [term not in near for term in claim.distinct]),
        "numbers_missing": _part(claim.quantities, lambda each: not each.is_among(found)),
        "names_missing": _part(claim.names, lambda each: not near.issuperset(each.terms)),
        "denial": float(claim.denies != polarity.denies(text)),
        "turned": polarity.turned(claim.denied, polarity.denied(text)),
        "contrary": float(bool(polarity.contradicted(frozenset(claim.distinct), held))),
        "absolute": float(bool(claim.absolutes - polarity.absolutes(text))),
    }
    return [values[name] for name in NAMES]


def _rest(claim: Claim, near: frozenset[str]) -> float:
    """The share held of what is neither a name nor a number: how sure it is what they are of."""
    facts = {term for each in claim.names for term in each.terms}
    plain_terms = [term not in facts and not term[0].isdigit() for term in claim.distinct]
    total = float(claim.weights @ np.array(plain_terms, dtype=np.float64))
    if not total:
        return 0.0
    held = [
        is_plain and term in near
        for is_plain, term in zip(plain_terms, claim.distinct, strict=True)
    ]
    return float(claim.weights @ np.array(held, dtype=np.float64)) / total


def _share(claim: Claim, holds: Sequence[bool]) -> float:
    total = float(claim.weights.sum())
    return float(claim.weights @ np.array(holds, dtype=np.float64)) / total if total else 1.0


def _most(claim: Claim, lacks: Sequence[bool]) -> float:
    """The weight of the rarest term that is lacking."""
    return float((claim.weights * np.array(lacks, dtype=np.float64)).max(initial=0.0))


def _part(items: Sequence[object], lacks: Callable[..., bool]) -> float:
    return sum(map(lacks, items)) / len(items) if items else 0.0


def _runs(claim: Sequence[str], text: Sequence[str], size: int) -> float:
    """The share of the claim's runs of terms that the text has; of shorter ones where it is one."""
    size = min(size, len(claim))
    if not size:
        return 1.0
    mine = {tuple(claim[at : at + size]) for at in range(len(claim) - size + 1)}
    theirs = {tuple(text[at : at + size]) for at in range(len(text) - size + 1)}
    return len(mine & theirs) / len(mine)


def _order(claim: Sequence[str], text: Sequence[str]) -> float:
    """The share of neighbours among the shared terms that stand in the same order; 1 for none."""
    place: dict[str, int] = {}
    for at, term in enumerate(text):
        place.setdefault(term, at)
    shared = [place[term] for term in dict.fromkeys(claim) if term in place]
    if len(shared) < 2:
        return 1.0
    return sum(one < two for one, two in zip(shared, shared[1:], strict=False)) / (len(shared) - 1)


def _letters(text: str) -> frozenset[str]:
    joined = f" {' '.join(plain(text).split())} "
    return frozenset(joined[at : at + LETTERS] for at in range(len(joined) - LETTERS + 1))


def _overlap(mine: frozenset[str], theirs: frozenset[str]) -> float:
    return len(mine & theirs) / len(mine) if mine else 1.0

"""Names, numbers and dates of a claim that the text which carries it most does not have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from infra.contracts import Disagreement
from monitoring.grounding.names import names
from monitoring.grounding.quantities import Quantity, quantities
from monitoring.grounding.terms import content_terms

MOST = 10
"""Told of one claim."""


def disagreements(claim: str, window: str, everything: frozenset[str]) -> list[Disagreement]:
    """Return what a claim says and a text does not.

    Args:
        claim: a sentence.
        window: the stretch that carries it most, with its title.
        everything: terms of all texts; a name that one of them has is not told.
    """
    said, held = quantities(claim), quantities(window)
    spare = [each for each in held if not each.is_among(said)]
    found = [
        Disagreement(each.kind, each.text, _instead(each, claim, spare, window))
        for each in said
        if not each.is_among(held)
    ]
    theirs = {each.text for each in names(window)}
    known = {each.text for each in names(claim)}
    for name in names(claim):
        if not everything.issuperset(name.terms):
            others = sorted(theirs - known)
            found.append(Disagreement("name", name.text, others[0] if len(others) == 1 else None))
    return found[:MOST]


def _instead(mine: Quantity, claim: str, spare: Sequence[Quantity], window: str) -> str | None:
    """What the text has in its place: beside the same word, or the only one of its kind."""
    alike = [each for each in spare if _kind(each) == _kind(mine)]
    unit = content_terms(claim[mine.end : mine.end + 40])[:1]
    beside = [each for each in alike if content_terms(window[each.end : each.end + 40])[:1] == unit]
    chosen = beside if unit and beside else alike
    return chosen[0].text if len({each.values for each in chosen}) == 1 else None


def _kind(each: Quantity) -> tuple[Literal["number", "date"], bool]:
    return each.kind, each.is_month

"""What is left of a specification without its wrong keys: what else is wrong is told with them."""

from __future__ import annotations

import copy
from typing import Any

from training.problems import Problem
from training.spec import FineTuning, InvalidSpecification, parse

CHECK = "specification"
CERTAIN = (
    "found", "rows", "control_tokens", "duplicates", "leakage", "preferences", "supervision",
    "template", "tokenizer",
)  # fmt: skip
"""Checks of what is named and of rows: a key that is left out makes none of them wrong. Others hold
sizes against each other, of which one may be the key."""

NAMELESS = "unnamed"
STAND_INS = {"name": NAMELESS, "schedule": {"rows_per_step": 1, "steps": 1}}
"""For sections that are needed, and that say nothing of what is named or of rows."""


def understood(values: Any, *, source: str) -> tuple[FineTuning | None, tuple[Problem, ...]]:
    """Return a specification without the keys that are wrong, and a problem for each of those.

    The first is None where too little is left to be a specification.
    """
    try:
        return parse(values, source=source), ()
    except InvalidSpecification as error:
        problems = tuple(_problem(line) for line in error.problems)
        return _left(copy.deepcopy(values), error), problems


def _left(values: Any, error: InvalidSpecification) -> FineTuning | None:
    """Take out what is wrong, and then what misses it, as long as there is something to take."""
    taken = 1
    while taken:
        # What is deeper goes first: of two places, one may be in the other.
        places = sorted(set(error.places), key=len, reverse=True)
        taken = sum(_take_out(values, place) for place in places)
        taken += _stand_in(values)
        try:
            return parse(values)
        except InvalidSpecification as next_one:
            error = next_one
    return None


def _stand_in(values: Any) -> int:
    """Put something in the place of sections that are needed and gone; say how many they are."""
    gone = [key for key in STAND_INS if isinstance(values, dict) and key not in values]
    for key in gone:
        values[key] = copy.deepcopy(STAND_INS[key])
    return len(gone)


def _problem(line: str) -> Problem:
    where, _, what = line.partition(": ")
    return Problem(CHECK, where, what)


def _take_out(values: Any, place: tuple[str | int, ...]) -> bool:
    """Take out a key where pydantic says that it is, which adds names of unions on the way."""
    last: tuple[dict[Any, Any], Any] | None = None
    for part in place:
        if isinstance(values, dict) and part in values:
            last, values = (values, part), values[part]
        elif isinstance(values, list) and isinstance(part, int) and part < len(values):
            values = values[part]
    if last is not None:
        del last[0][last[1]]
    return last is not None

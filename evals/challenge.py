"""A challenger beside the version in use: read whenever one likes, and decided by rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from evals.statistics.betting import Bets, bets
from evals.statistics.intervals import Interval

Verdict = Literal["holds", "breaks", "unsure", "told"]
"""Whether a rule is surely kept, surely broken, or neither; `told` has no rule."""
Decision = Literal["promote", "roll_back", "wait"]
AGREEMENT, ERROR, FAILURES = "agreement", "error", "failures"


@dataclass(frozen=True, slots=True)
class Rules:
    """What a challenger has to show."""

    min_requests: int
    """Of each measure that has a rule, before anything is promoted."""
    level: float
    margin: float | None
    """By how much its error may be higher, surely at most; below 0 it has to be lower. None tells
    the error, and decides nothing by it."""
    agreement: float | None
    """The share that must agree, surely at least."""
    max_failures: float
    """The share that may fail, surely at most."""


@dataclass(frozen=True, slots=True)
class Observed:
    """What was seen, a value for each request, in the order in which it was known.

    A request counts once, however many rows it has: rows of one request are alike.
    """

    agreement: Sequence[float]
    """The share of rows of which both say the same."""
    errors: Sequence[float]
    """The challenger's loss less that of the version in use, each from 0 to 1."""
    failures: Sequence[float]
    """1 where the challenger failed."""


@dataclass(frozen=True, slots=True)
class Measure:
    """A mean, its bounds after all looks so far, and what they say of its rule."""

    name: str
    requests: int
    interval: Interval | None
    """None where nothing was seen."""
    limit: float | None
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Weighed:
    """All measures, and what follows."""

    measures: tuple[Measure, ...]
    decision: Decision
    reason: str


def weigh(observed: Observed, rules: Rules) -> Weighed:
    """Return what is sure by now. It may be asked after every request, at the same error.

    A good challenger is rolled back with probability 1 - level at most, over all rules and however
    often one looks; a bad one is promoted with no more.
    """
    margin = rules.margin
    ruled = [rules.agreement is not None, margin is not None, True]
    alpha = 1 - rules.level
    apart = alpha / sum(ruled)  # any broken rule is enough to roll back
    found = (
        _measure(AGREEMENT, observed.agreement, rules.agreement, rules, apart=apart),
        _measure(ERROR, observed.errors, margin, rules, apart=apart),
        _measure(FAILURES, observed.failures, rules.max_failures, rules, apart=apart),
    )
    return Weighed(found, *_decide(found, rules))


def _measure(
    name: str, values: Sequence[float], limit: float | None, rules: Rules, *, apart: float
) -> Measure:
    if not values:
        return Measure(name, 0, None, limit, "told" if limit is None else "unsure")
    seen = bets(values, bounds=(-1.0, 1.0) if name == ERROR else (0.0, 1.0))
    verdict: Verdict = "told"
    if limit is not None:
        verdict = _verdict(name, seen, limit, alpha=1 - rules.level, apart=apart)
    return Measure(name, len(values), seen.interval(rules.level), limit, verdict)


def _verdict(name: str, seen: Bets, limit: float, *, alpha: float, apart: float) -> Verdict:
    if name == AGREEMENT:
        holds, breaks = seen.p_above(limit), seen.p_below(limit)
    else:
        # One that has to be better and is not yet surely so is no worse for that.
        holds, breaks = seen.p_below(limit), seen.p_above(max(limit, 0.0))
    if breaks <= apart:
        return "breaks"
    return "holds" if holds <= alpha else "unsure"


def _decide(found: Sequence[Measure], rules: Rules) -> tuple[Decision, str]:
    broken = [each for each in found if each.verdict == "breaks"]
    if broken:
        return "roll_back", "; ".join(_words(each) for each in broken)
    ruled = [each for each in found if each.verdict != "told"]
    few = [each for each in ruled if each.requests < rules.min_requests]
    if few:
        least = min(few, key=lambda each: each.requests)
        return "wait", (
            f"{least.name}: {least.requests} requests are known, and min_requests is "
            f"{rules.min_requests}"
        )
    unsure = [each for each in ruled if each.verdict == "unsure"]
    if unsure:
        return "wait", "; ".join(_words(each) for each in unsure)
    if len(ruled) == 1:
        return "wait", "it does not fail, and neither margin nor agreement says what is better"
    return "promote", "; ".join(_words(each) for each in ruled)


def _words(measure: Measure) -> str:
    interval, said = measure.interval, {"breaks": "surely not within", "holds": "surely within"}
    assert interval is not None
    assert measure.limit is not None
    numbers = f"{interval.estimate:.4g} ({interval.low:.4g} to {interval.high:.4g})"
    how = said.get(measure.verdict, "not surely within")
    return f"{measure.name} is {numbers}, {how} {measure.limit:g}"


def relative(challenger: float, live: float) -> float:
    """Return the difference of two absolute errors, from -1 to 1: by their sum; 0 where both are.

    >>> relative(1.0, 3.0), relative(0.0, 0.0)
    (-0.5, 0.0)
    """
    total = challenger + live
    return 0.0 if total == 0 or not np.isfinite(total) else (challenger - live) / total

"""A challenger beside the version in use: read whenever one likes, and decided by rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from evals.statistics.betting import Bets, bets
from evals.statistics.intervals import Interval

Verdict = Literal["holds", "breaks", "unsure", "told"]
"""Whether a rule is surely kept, surely broken, or neither; `told` has no rule."""
Decision = Literal["promote", "roll_back", "wait"]
AGREEMENT, ERROR, FAILURES = "agreement", "error", "failures"
_FIRST_SHARE = 0.8
"""Of the error, for the first round; most challengers are decided in it."""


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
class Earlier:
    """What came before the values that are seen."""

    rounds: int = 0
    """Each with bets of its own, and a share of the error of its own."""
    requests: int = 0
    """Of all of them."""

    @property
    def share(self) -> float:
        """The present round's share of the error: most in the first, and 1 over all of them."""
        rest = 1 - _FIRST_SHARE
        return rest / (self.rounds * (self.rounds + 1)) if self.rounds else _FIRST_SHARE


@dataclass(frozen=True, slots=True)
class Observed:
    """What was seen in a round, a value for each request, in the order in which it was known.

    A request counts once, however many rows it has: rows of one request are alike. A round is as
    many requests as were agreed on before; when it is full the next one begins with none.
    """

    agreement: Sequence[float]
    """1 where both say the same."""
    errors: Sequence[float]
    """The challenger's loss less that of the version in use, each from 0 to 1."""
    failures: Sequence[float]
    """1 where the challenger failed."""
    earlier: Earlier = Earlier()
    earlier_labels: Earlier = Earlier()
    """The same of errors."""


@dataclass(frozen=True, slots=True)
class Measure:
    """A mean, its bounds after all looks so far, and what they say of its rule."""

    name: str
    requests: int
    """Of all rounds; the rest is of the present one."""
    interval: Interval | None
    """None where nothing was seen."""
    limit: float | None
    verdict: Verdict
    bound: float | None = None
    """On which the verdict rests: what it surely is at most, or at least. It looks one way, and a
    rule that is broken has a smaller share of the error, so it is none of the interval's."""


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
    ruled = [rules.agreement is not None, rules.margin is not None, True]
    apart = 1 / sum(ruled)  # any broken rule is enough to roll back
    kept, earlier = rules.agreement, observed.earlier
    found = (
        _measure(_Seen(AGREEMENT, observed.agreement, earlier), kept, rules, apart=apart),
        _measure(
            _Seen(ERROR, observed.errors, observed.earlier_labels), rules.margin, rules, apart=apart
        ),
        _measure(
            _Seen(FAILURES, observed.failures, earlier), rules.max_failures, rules, apart=apart
        ),
    )
    return Weighed(found, *_decide(found, rules))


@dataclass(frozen=True, slots=True)
class _Seen:
    name: str
    values: Sequence[float]
    earlier: Earlier


def _measure(seen: _Seen, limit: float | None, rules: Rules, *, apart: float) -> Measure:
    name, requests = seen.name, seen.earlier.requests + len(seen.values)
    if not seen.values:
        return Measure(name, requests, None, limit, "told" if limit is None else "unsure")
    alpha = (1 - rules.level) * seen.earlier.share
    bet = bets(seen.values, bounds=(-1.0, 1.0) if name == ERROR else (0.0, 1.0))
    interval = replace(bet.interval(1 - alpha), level=rules.level)
    if limit is None:
        return Measure(name, requests, interval, limit, "told")
    verdict, bound = _verdict(name, bet, limit, alpha=alpha, apart=alpha * apart)
    return Measure(name, requests, interval, limit, verdict, bound)


def _verdict(
    name: str, seen: Bets, limit: float, *, alpha: float, apart: float
) -> tuple[Verdict, float]:
    """Return what is sure of a rule, and the bound that says so.

    Bounds are found between few means, and may be on the wide side of the limit itself.
    """
    sign, side = (-1, seen.mirrored()) if name == AGREEMENT else (1, seen)
    most = sign * limit
    # One that has to be better and is not yet surely so is no worse for that.
    worst = max(most, 0.0) if name == ERROR else most
    if side.p_above(worst) <= apart:
        return "breaks", sign * max(side.at_least(apart), worst)
    if side.p_below(most) <= alpha:
        return "holds", sign * min(side.at_most(alpha), most)
    return "unsure", sign * max(side.at_most(alpha), most)


def _decide(found: Sequence[Measure], rules: Rules) -> tuple[Decision, str]:
    broken = [each for each in found if each.verdict == "breaks"]
    if broken:
        return "roll_back", ", and ".join(_words(each) for each in broken)
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
        return "wait", ", and ".join(_words(each) for each in unsure)
    if len(ruled) == 1:
        return "wait", "it does not fail, and neither margin nor agreement says what is better"
    return "promote", ", and ".join(_words(each) for each in ruled)


def _words(measure: Measure) -> str:
    if measure.interval is None:
        return f"{measure.name}: nothing is known of the present round"
    rule = "least" if measure.name == AGREEMENT else "most"
    other = "most" if measure.name == AGREEMENT else "least"
    way = other if measure.verdict == "breaks" else rule
    return (
        f"{measure.name} is {measure.interval.estimate:.4g}, surely at {way} {measure.bound:.4g}; "
        f"the rule is at {rule} {measure.limit:g}"
    )


def relative(challenger: float, live: float) -> float:
    """Return the difference of two absolute errors, from -1 to 1: by their sum; 0 where both are.

    >>> relative(1.0, 3.0), relative(0.0, 0.0)
    (-0.5, 0.0)
    """
    total = challenger + live
    return 0.0 if total == 0 or not np.isfinite(total) else (challenger - live) / total

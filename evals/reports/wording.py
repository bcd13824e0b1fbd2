"""Gates and verdicts in words, the same in every form of a report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evals.declared import Gate
from evals.gates import Decision
from evals.reports.elements import number
from evals.statistics.intervals import Interval
from evals.suite import ALL

MEANINGS: Mapping[str, str] = {
    "pass": "Every gate holds.",
    "ungated": "No gate or check of the suite blocks, so nothing was promised.",
    "fail": "A gate is missed, surely.",
    "inconclusive": "It is not sure that every gate holds, nor that one is missed.",
    "underpowered": "There are too few cases to be sure that every gate holds.",
    "infrastructure": "Too much was not scored to say anything.",
    "unscored": "There was nothing to score.",
}


def demand(gate: Gate) -> str:
    """Return what must hold.

    >>> demand(Gate("contains", "floor", 0.8))
    'contains above 0.8'
    """
    where = f" on {gate.slice}" if gate.slice else ""
    match gate.kind:
        case "floor":
            return f"{gate.metric} above {gate.limit:g}{where}"
        case "ceiling":
            return f"{gate.metric} below {gate.limit:g}{where}"
        case "non_inferior" if gate.beside == "original":
            return f"{gate.metric} drops by at most {gate.limit:g}{where}"
        case "non_inferior":
            return f"{gate.metric} at most {gate.limit:g} worse than the baseline{where}"
    return f"{gate.metric} better than the baseline{where}"


def about(target: Mapping[str, Any]) -> str:
    """Return what a target says of itself, without what is not set."""
    return ", ".join(f"{key} {value}" for key, value in sorted(target.items()) if value)


def between(interval: Interval | None) -> str:
    """Return an estimate with its bounds."""
    if interval is None:
        return "-"
    found = f"{number(interval.estimate)} ({number(interval.low)} to {number(interval.high)})"
    return f"{found}, {interval.level:.0%}"


def numbers(decision: Decision) -> list[tuple[str, str]]:
    """Return every number that led to a verdict, with its name."""
    flip = decision.sign_flip
    rows = [
        ("estimate", between(decision.interval)),
        ("threshold", number(decision.threshold)),
        ("method", decision.method or "-"),
        ("p of 'not met'", _adjusted(decision.p_met, decision.adjusted_met)),
        ("p of 'met'", _adjusted(decision.p_missed, decision.adjusted_missed)),
        ("alpha", number(decision.alpha)),
        ("cases scored", f"{decision.cases:,} of {decision.planned:,}"),
        ("coverage", f"{decision.coverage:.1%}, {decision.gate.coverage:.1%} demanded"),
        ("cases needed", "-" if decision.needed is None else f"{decision.needed:,}"),
        ("clusters", f"{decision.clusters:,}"),
        ("design effect", number(decision.design_effect)),
        ("repeats", str(decision.repeats)),
        ("slice", decision.gate.slice or ALL),
    ]
    if flip is not None:
        rows.append(("p of 'no change', by permutation", number(flip)))
    return rows


def _adjusted(alone: float | None, adjusted: float | None) -> str:
    if alone is None:
        return "-"
    return (
        f"{alone:.2g}; {adjusted:.2g} among all gates" if adjusted is not None else f"{alone:.2g}"
    )

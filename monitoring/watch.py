"""Signals out: windows -> detectors -> series -> alerts -> triggers, monitor by monitor."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

from monitoring.alarm import Judged, Patience, action, is_alarm
from monitoring.columns import Column
from monitoring.comparison import FeatureFinding, Plan, Report, compare
from monitoring.watch_results import Result, WatchResults
from monitoring.windows import Window

MOST_FEATURES = 50
"""Of a report; those that moved most come first."""
MOST_EXAMPLES = 5
_SURE = 1.96
"""Standard errors to either side of a mean that bounds of 95 % are apart."""


@dataclass(frozen=True, slots=True)
class Monitor:
    """What is watched, beside what, and how patiently."""

    name: str
    every: timedelta
    """Between two windows, and the length of each."""
    plan: Plan = field(default_factory=Plan)
    floors: Mapping[str, float] = field(default_factory=dict)
    """Columns of numbers; with the upper bound of their mean below this, drift does harm."""
    patience: Patience = Patience()


@dataclass(frozen=True, slots=True)
class Event:
    """Something that receivers are told."""

    monitor: str
    action: str
    """ticket, pipeline, suppressed or resolved."""
    at: datetime
    summary: str
    evidence: Mapping[str, Any]
    """The report on the window that led to it."""


Tell = Callable[[Event], None]


def look(
    monitor: Monitor, reference: Window, window: Window, *, results: WatchResults, now: datetime
) -> tuple[Result, Event | None]:
    """Judge one window, store what was found, and return what somebody has to be told of it.

    Whoever tells does so after this: what was found is stored even where nobody can be reached.
    """
    found = compare(reference, window, monitor.plan)
    performance = [_mean(window, name, floor) for name, floor in monitor.floors.items()]
    before = [each.judged for each in results.latest(monitor.name)]
    alarm = is_alarm(before, found.verdict, monitor.patience)
    has_harm = any(_is_below(each) for each in performance)
    led_to = action(before, alarm, has_harm=has_harm, now=now, patience=monitor.patience)
    report = _report(monitor, found, performance, now=now)
    result = Result(monitor.name, Judged(now, found.verdict, alarm, led_to), report)
    results.add(result)
    if led_to is None:
        return result, None
    return result, Event(monitor.name, led_to, now, _summary(found, led_to), report)


def tell(event: Event, receivers: Sequence[Tell], *, failed: Callable[[Exception], None]) -> int:
    """Tell every receiver; one that cannot be reached keeps no other from it. Returns how many."""
    told = 0
    for receiver in receivers:
        try:
            receiver(event)
            told += 1
        except (OSError, ValueError) as error:
            failed(error)
    return told


def _report(
    monitor: Monitor, found: Report, performance: list[dict[str, Any]], *, now: datetime
) -> dict[str, Any]:
    ordered = sorted(found.findings, key=_weight, reverse=True)
    return {
        "due": (now + monitor.every).timestamp(),
        "rows": {"reference": found.reference_rows, "measurement": found.window_rows},
        "features": [_feature(each) for each in ordered[:MOST_FEATURES]],
        "left_out": max(0, len(ordered) - MOST_FEATURES),
        "performance": performance,
    }


def _feature(found: FeatureFinding) -> dict[str, Any]:
    finding = found.finding
    name = f"{found.feature} [{found.slice}]" if found.slice else found.feature
    return {
        "feature": name,
        "detector": finding.detector,
        "verdict": finding.verdict,
        "explanation": finding.explanation,
        "p_adjusted": finding.p_adjusted,
        "effect": finding.effect,
        "effect_unit": finding.effect_unit,
        "least_effect": finding.least_effect,
        "causes": [asdict(each) for each in finding.causes[:MOST_EXAMPLES]],
        "examples": [int(each) for each in finding.examples[:MOST_EXAMPLES]],
    }


def _weight(found: FeatureFinding) -> tuple[bool, float]:
    finding = found.finding
    effect = finding.effect or 0.0
    return finding.is_drift, effect / (finding.least_effect or 1.0)


def _mean(window: Window, name: str, floor: float) -> dict[str, Any]:
    """Return the mean of a column between bounds of 95 %; nothing where there are no values."""
    nothing = {"metric": name, "floor": floor, "estimate": None, "low": None, "high": None}
    if name not in window.names:
        return nothing
    column: Column = window.column(name)
    values = column.present
    if column.kind != "numbers" or len(values) < 2:
        return nothing
    mean = float(values.mean())
    reach = _SURE * float(values.std(ddof=1)) / math.sqrt(len(values))
    return {**nothing, "estimate": mean, "low": mean - reach, "high": mean + reach}


def _is_below(performance: Mapping[str, Any]) -> bool:
    return performance["high"] is not None and performance["high"] < performance["floor"]


def _summary(found: Report, led_to: str) -> str:
    if led_to == "resolved":
        return "What had drifted is as in the reference again"
    moved = ", ".join(each.feature for each in found.drifted[:3]) or "nothing in this window"
    more = len(found.drifted) - 3
    return f"Drift of {moved}" + (f" and {more} more" if more > 0 else "")

"""Signals out: windows -> detectors -> series -> alerts -> triggers, monitor by monitor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from infra.errors import InvalidRequest, NotFound
from monitoring import estimates, streams
from monitoring.alarm import Action, Judged, Patience, in_order, is_alarm, is_confirmed
from monitoring.comparison import FeatureFinding, Plan, Report, compare
from monitoring.estimates import Labelled, Mean, Unlabelled
from monitoring.findings import Verdict
from monitoring.interaction_exports import UNLIKE
from monitoring.shapes import LEAST_WINDOWS, name_shape
from monitoring.streams import Place, Since, Standing, Stream
from monitoring.triggers import Event, Start, State, Trigger, decide
from monitoring.untold import SUMMARY
from monitoring.watch_results import Moved, Result, WatchResults
from monitoring.windows import EPOCH, Window

MOST_FEATURES = 50
"""Of a report; those that moved most come first."""
MOST_EXAMPLES = 5
MOST_WINDOWS = 200
"""That the shape of a metric's change is told from."""
_REACH = 2 * 1.96
"""Standard errors that bounds of 95 % are apart."""


@dataclass(frozen=True, slots=True)
class Monitor:
    """What is watched, beside what, and how patiently."""

    name: str
    every: timedelta
    """Between two looks, and the length of each window that is a stretch of time."""
    plan: Plan = field(default_factory=Plan)
    features: Sequence[str] = ()
    """Columns that are compared; all of the reference's if none is named."""
    floors: Mapping[str, float] = field(default_factory=dict)
    """Columns of numbers; with the upper bound of their mean below this, there is harm."""
    unlabelled: Sequence[Unlabelled] = ()
    labelled: Sequence[Labelled] = ()
    streams: Sequence[Stream] = ()
    patience: Patience = Patience()
    trigger: Trigger | None = None
    receivers: Sequence[str] = ()
    """Who is told, by name."""


@dataclass(frozen=True, slots=True)
class Span:
    """Rows that were written one after the other, by their numbers."""

    after: int
    """The number of the row before the first."""
    until: int
    """The number of the last."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a monitor looks at."""

    reference: Window
    window: Window
    """What came since the last look."""
    since: Since
    """Reads columns of what came since another moment, or of the window's rows and those before."""
    mean: Mean
    """Of labels: prediction-powered inference."""
    rows: Span | None = None
    """Where the window is so many rows, which those are."""


def look(
    monitor: Monitor, seen: Seen, *, results: WatchResults, now: datetime
) -> tuple[Result, Event | None]:
    """Judge one window, store what was found, and return what it led to, if to anything.

    Harm from before the trigger last started something is what that was started for: it counts no
    more, however far back labels are looked for.

    Who has to be told is stored with it, and told after this (`monitoring.untold`): nothing that is
    found is lost where nobody can be reached. What the trigger starts is started with that, or not
    at all.

    Raises:
        JudgedAlready: somebody else has judged a window of the monitor meanwhile.
    """
    last = results.last(monitor.name)
    before, latest = in_order(results.judged(monitor.name), now=now), _latest(results, monitor)
    found = compare(*features(monitor, seen), monitor.plan)
    standings = _follow(monitor, seen, latest[-1:], now=now)
    started = max((each.at for each in before if each.action == "started"), default=EPOCH)
    performance = _performance(monitor, seen, latest, now=now, started=started)
    verdict = _verdict(found, standings)
    is_sure = any(each.verdict == "drift" for each in standings)
    alarm = is_alarm(before, verdict, monitor.patience, is_sure=is_sure)
    since = [
        each.report["performance"]
        for each, judged in zip(latest, before[-len(latest) :], strict=False)
        if judged.at > started
    ]
    harms = [_has_harm(each) for each in (*since, performance)]
    state = State(alarm, harms[-1], is_confirmed(harms, monitor.patience))
    led_to = decide(monitor.trigger, before, state, now=now)
    report = _report(monitor, found, standings, performance, now=now)
    judged = Judged(now, verdict, alarm, led_to)
    event = None if led_to is None else _event(monitor, judged, led_to, found, report)
    told = {} if event is None else {SUMMARY: event.summary}
    result = Result(monitor.name, judged, {**report, **told})
    moved = None if seen.rows is None else Moved(seen.rows.after, seen.rows.until)
    results.add(
        result,
        after=last,
        start=_prepared(monitor.trigger, event),
        moved=moved,
        receivers=() if event is None else monitor.receivers,
    )
    return result, event


def features(monitor: Monitor, seen: Seen) -> tuple[Window, Window]:
    """Return the reference and the window with the columns alone that are compared."""
    every = (name for name in seen.reference.names if name not in UNLIKE)
    names = (*(monitor.features or every), *monitor.plan.slices)
    if monitor.plan.season is not None:
        names = (*names, monitor.plan.season)
    # One that is named twice would be two tests, and count twice against all others.
    kept = seen.reference.only(list(dict.fromkeys(names)))
    return kept, seen.window.only(kept.names)


def _latest(results: WatchResults, monitor: Monitor) -> list[Result]:
    """Return the results before, oldest first, as many as anything here looks back at."""
    has_metrics = monitor.floors or monitor.unlabelled or monitor.labelled
    limit = MOST_WINDOWS if has_metrics else monitor.patience.among
    return results.latest(monitor.name, limit=limit)


def _follow(
    monitor: Monitor, seen: Seen, before: Sequence[Result], *, now: datetime
) -> list[Standing]:
    told = before[-1].report.get("streams", ()) if before else ()
    start: Place = now - monitor.every if seen.rows is None else seen.rows.after
    return streams.look(monitor.streams, seen.reference, seen.since, before=told, start=start)


def _performance(
    monitor: Monitor, seen: Seen, before: Sequence[Result], *, now: datetime, started: datetime
) -> list[dict[str, Any]]:
    """Return every metric of the window; one that cannot be told keeps no other from it."""
    found = [
        estimates.mean_of_column(name, floor, seen.window) for name, floor in monitor.floors.items()
    ]
    for wanted in monitor.unlabelled:
        try:
            found.append(estimates.without_labels(wanted, seen.reference, seen.window))
        except (InvalidRequest, NotFound) as error:
            found.append(estimates.refused(wanted.name, wanted.floor, "confidence", error.message))
    for each in monitor.labelled:
        try:
            rows = seen.since(max(now - each.over, started), each.columns)
            found.append(estimates.with_labels(each, rows, seen.mean))
        except (InvalidRequest, NotFound) as error:
            found.append(estimates.refused(each.name, each.floor, "labels", error.message))
    return [{**each, "shape": _shape(each, before)} for each in found]


def _shape(told: Mapping[str, Any], before: Sequence[Result]) -> dict[str, Any] | None:
    """Return how a metric went over the windows up to this one; None where they are too few."""
    series = [
        each
        for report in (result.report["performance"] for result in before)
        for each in report
        if each["metric"] == told["metric"]
    ]
    known = [each for each in (*series, told) if each["estimate"] is not None]
    errors = np.array([(each["high"] - each["low"]) / _REACH for each in known])
    if len(known) < LEAST_WINDOWS or not (errors > 0).any():
        return None
    # A window whose values are all equal is no surer of the truth than the others are.
    errors[errors <= 0] = errors[errors > 0].mean()
    change = name_shape([each["estimate"] for each in known], errors)
    return {"shape": change.shape, "explanation": change.explanation, "windows": len(known)}


def _verdict(found: Report, standings: Sequence[Standing]) -> Verdict:
    """Return what the window shows: a stream that is sure is drift, whatever windows show."""
    if any(each.verdict == "drift" for each in standings):
        return "drift"
    if found.verdict == "stable" and any(each.is_undecided for each in standings):
        return "not_enough_data"
    return found.verdict


def _has_harm(performance: Sequence[Mapping[str, Any]]) -> bool:
    return any(estimates.below_floor(each) for each in performance)


def _prepared(trigger: Trigger | None, event: Event | None) -> Start | None:
    if trigger is None or event is None or event.action != "started":
        return None
    return trigger.action(event)


def _report(
    monitor: Monitor,
    found: Report,
    standings: Sequence[Standing],
    performance: list[dict[str, Any]],
    *,
    now: datetime,
) -> dict[str, Any]:
    ordered = sorted(found.findings, key=lambda each: each.order, reverse=True)
    return {
        "due": (now + monitor.every).timestamp(),
        "rows": {"reference": found.reference_rows, "measurement": found.window_rows},
        "features": [_feature(each) for each in ordered[:MOST_FEATURES]],
        "left_out": max(0, len(ordered) - MOST_FEATURES),
        "streams": [each.told() for each in standings],
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
        "weight": finding.weight,
        "causes": [asdict(each) for each in finding.causes[:MOST_EXAMPLES]],
        "examples": [int(each) for each in finding.examples[:MOST_EXAMPLES]],
    }


def _event(
    monitor: Monitor, judged: Judged, led_to: Action, found: Report, report: Mapping[str, Any]
) -> Event:
    return Event(monitor.name, led_to, judged.at, _summary(led_to, found, report), report)


def _summary(led_to: Action, found: Report, report: Mapping[str, Any]) -> str:
    if led_to == "resolved":
        return "What had drifted is as in the reference again"
    streams_moved = [each["feature"] for each in report["streams"] if each["verdict"] == "drift"]
    moved = list(dict.fromkeys([*(each.feature for each in found.drifted), *streams_moved]))
    more = f" and {len(moved) - 3} more" if len(moved) > 3 else ""
    words = f"Drift of {', '.join(moved[:3]) or 'nothing in this window'}{more}"
    harmed = [
        f"{each['metric']} is at most {each['high']:.4g}, its floor is {each['floor']:.4g}"
        for each in report["performance"]
        if estimates.below_floor(each)
    ]
    return "; ".join([words, *harmed])

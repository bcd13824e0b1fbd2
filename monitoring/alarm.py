"""When drift is an alarm, when it is over, and what an alarm leads to: hysteresis and cool-down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, TypeAlias

from monitoring.findings import Verdict

Action: TypeAlias = Literal["ticket", "pipeline", "suppressed", "resolved"]


@dataclass(frozen=True, slots=True)
class Judged:
    """A window as it was judged."""

    at: datetime
    verdict: Verdict
    is_alarm: bool
    """After it."""
    action: Action | None = None


@dataclass(frozen=True, slots=True)
class Patience:
    """How sure one wants to be, and how often one wants to be told."""

    confirm: int = 2
    """Windows with drift, ..."""
    among: int = 3
    """... of so many of the latest, raise an alarm."""
    clear: int = 3
    """Stable windows in a row end it."""
    cool_down: timedelta = timedelta(hours=24)
    """After a pipeline was started, until another may be."""


def is_alarm(before: Sequence[Judged], verdict: Verdict, patience: Patience) -> bool:
    """Return whether there is an alarm after a window, given those before it, in order.

    A window that could not be compared neither confirms nor clears anything: it says nothing.

    >>> from datetime import UTC
    >>> now = datetime(2026, 1, 1, tzinfo=UTC)
    >>> once = [Judged(now, "stable", False), Judged(now, "drift", False)]
    >>> is_alarm(once, "drift", Patience()), is_alarm(once, "not_enough_data", Patience())
    (True, False)
    """
    was = bool(before) and before[-1].is_alarm
    verdicts = [each.verdict for each in before if each.verdict in {"drift", "stable"}]
    if verdict not in {"drift", "stable"}:
        return was
    verdicts.append(verdict)
    if was:
        latest = verdicts[-patience.clear :]
        return not (len(latest) == patience.clear and set(latest) == {"stable"})
    return verdicts[-patience.among :].count("drift") >= patience.confirm and verdict == "drift"


def action(
    before: Sequence[Judged], alarm: bool, *, has_harm: bool, now: datetime, patience: Patience
) -> Action | None:
    """Return what a window leads to; None if to nothing new.

    Drift alone is a ticket, once. Drift that does harm starts the pipeline, unless it was started
    less than the cool-down ago; that is said once, as `suppressed`.

    Args:
        before: the windows before, in order.
        alarm: whether there is an alarm now.
        has_harm: a metric is surely below its floor.
        now: by the clock of whoever measures.
        patience: with the cool-down.
    """
    was = bool(before) and before[-1].is_alarm
    if not alarm:
        return "resolved" if was else None
    episode = _episode(before)
    if not has_harm:
        return None if any(episode) else "ticket"
    started = [each.at for each in before if each.action == "pipeline"]
    if started and now - started[-1] < patience.cool_down:
        return None if {"pipeline", "suppressed"} & set(episode) else "suppressed"
    return "pipeline"


def _episode(before: Sequence[Judged]) -> list[Action | None]:
    """Return the actions since the alarm at hand was raised."""
    actions: list[Action | None] = []
    for each in reversed(before):
        if not each.is_alarm:
            break
        actions.append(each.action)
    return actions

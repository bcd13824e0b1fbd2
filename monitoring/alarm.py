"""When drift is an alarm, when it is over, and when harm is sure: hysteresis over windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal, TypeAlias

from monitoring.findings import Verdict

Action: TypeAlias = Literal["ticket", "harm", "started", "suppressed", "resolved"]


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
    """How sure one wants to be."""

    confirm: int = 2
    """Windows with drift, ..."""
    among: int = 3
    """... of so many of the latest, raise an alarm."""
    clear: int = 3
    """Stable windows in a row end it."""


def in_order(before: Sequence[Judged], *, now: datetime) -> list[Judged]:
    """Return windows with none later than those after it, or than now: a clock may have jumped.

    >>> from datetime import UTC
    >>> days = [datetime(2026, 1, day, tzinfo=UTC) for day in (1, 9, 3)]
    >>> windows = [Judged(day, "stable", False) for day in days]
    >>> [each.at.day for each in in_order(windows, now=days[2])]
    [1, 3, 3]
    """
    latest, found = now, []
    for each in reversed(before):
        latest = min(latest, each.at)
        found.append(replace(each, at=latest))
    return found[::-1]


def is_alarm(
    before: Sequence[Judged], verdict: Verdict, patience: Patience, *, is_sure: bool = False
) -> bool:
    """Return whether there is an alarm after a window, given those before it, in order.

    A window that could not be compared neither confirms nor clears anything: it says nothing. One
    that `is_sure`, as a detector with a budget for all its looks is, needs no other to confirm it.

    >>> from datetime import UTC
    >>> now = datetime(2026, 1, 1, tzinfo=UTC)
    >>> once = [Judged(now, "stable", False), Judged(now, "drift", False)]
    >>> is_alarm(once, "drift", Patience()), is_alarm(once, "not_enough_data", Patience())
    (True, False)
    >>> is_alarm([], "drift", Patience(), is_sure=True)
    True
    """
    was = bool(before) and before[-1].is_alarm
    verdicts = [each.verdict for each in before if each.verdict in {"drift", "stable"}]
    if verdict not in {"drift", "stable"}:
        return was
    verdicts.append(verdict)
    if was:
        latest = verdicts[-patience.clear :]
        return not (len(latest) == patience.clear and set(latest) == {"stable"})
    if verdict == "stable":
        return False
    return is_sure or verdicts[-patience.among :].count("drift") >= patience.confirm


def is_confirmed(harms: Sequence[bool], patience: Patience) -> bool:
    """Return whether harm that shows in the last of some windows does so in enough of the latest.

    >>> is_confirmed([True, False, True], Patience()), is_confirmed([True, True, False], Patience())
    (True, False)
    """
    return bool(harms) and harms[-1] and harms[-patience.among :].count(True) >= patience.confirm

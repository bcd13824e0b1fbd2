"""What a monitor starts, and when: on harm rather than on drift, and not again too soon."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, TypeAlias

from sqlalchemy import Connection

from monitoring.alarm import Action, Judged

When: TypeAlias = Literal["drift", "harm", "drift_with_harm"]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that receivers are told, and that a trigger starts on."""

    monitor: str
    action: Action
    at: datetime
    summary: str
    evidence: Mapping[str, Any]
    """The report on the window that led to it."""


Start: TypeAlias = Callable[[Connection], str]
"""Starts, within the transaction that stores the window, and returns the id of what it started."""
Prepare: TypeAlias = Callable[[Event], Start]
"""Lays the evidence out, which may take long, and returns what starts."""


@dataclass(frozen=True, slots=True)
class Trigger:
    """Starts a retraining, a re-indexing or whatever else its action does.

    A job that is started within the transaction runs if, and only if, the window that led to it is
    stored: a kill in between starts nothing twice and forgets no start.

    >>> def prepare(event):
    ...     evidence = f"evidence/{event.monitor}"
    ...     return lambda connection: f"job-retrain-from-{evidence}"
    >>> Trigger("retrain", "drift_with_harm", prepare, cool_down_seconds=3600).cool_down
    datetime.timedelta(seconds=3600)
    """

    name: str
    when: When
    """`drift`: an alarm is raised. `harm`: a metric is surely below its floor, window after
    window. `drift_with_harm`: an alarm stands, and a metric is surely below its floor."""
    action: Prepare
    cool_down_seconds: float = 86_400.0
    """After it started something, until it may again."""

    @property
    def cool_down(self) -> timedelta:
        return timedelta(seconds=self.cool_down_seconds)


@dataclass(frozen=True, slots=True)
class State:
    """How things stand after a window."""

    is_alarm: bool
    has_harm: bool
    """A metric is surely below its floor in this window."""
    is_harm_confirmed: bool = False
    """And was in enough of those before."""


def decide(
    trigger: Trigger | None, before: Sequence[Judged], state: State, *, now: datetime
) -> Action | None:
    """Return what a window leads to; None if to nothing new.

    Drift alone is a ticket, once an alarm, unless the trigger wants to start on it. What the
    trigger wants is started, unless it was less than the cool-down ago; that is said once, as
    `suppressed`. Without a trigger, harm beside drift is said once an alarm.

    Args:
        trigger: of the monitor, if it has one.
        before: the windows before, in order.
        state: after this window.
        now: by the clock of whoever measures.
    """
    was = bool(before) and before[-1].is_alarm
    if was and not state.is_alarm:
        return "resolved"
    episode = _episode(before) if state.is_alarm else []
    if trigger is not None and _wants(trigger.when, state):
        return _start(trigger, before, episode, now=now)
    if not state.is_alarm:
        return None
    if trigger is None and state.has_harm:
        return None if "harm" in episode else "harm"
    return None if any(episode) else "ticket"


def _wants(when: When, state: State) -> bool:
    return {
        "drift": state.is_alarm,
        "harm": state.is_harm_confirmed,
        "drift_with_harm": state.is_alarm and state.has_harm,
    }[when]


def _start(
    trigger: Trigger, before: Sequence[Judged], episode: Sequence[Action | None], *, now: datetime
) -> Action | None:
    starts = [place for place, each in enumerate(before) if each.action == "started"]
    if not starts or now - before[starts[-1]].at >= trigger.cool_down:
        return "started"
    since = {each.action for each in before[starts[-1] :]}
    return None if "started" in episode or "suppressed" in since else "suppressed"


def _episode(before: Sequence[Judged]) -> list[Action | None]:
    """Return the actions since the alarm at hand was raised."""
    actions: list[Action | None] = []
    for each in reversed(before):
        if not each.is_alarm:
            break
        actions.append(each.action)
    return actions

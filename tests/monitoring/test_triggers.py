"""What windows lead to: told once, started on what the trigger wants, not again too soon."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection

from monitoring.alarm import Judged, Patience, is_alarm, is_confirmed
from monitoring.findings import Verdict
from monitoring.triggers import Event, Start, State, Trigger, When, decide

START = datetime(2026, 11, 29, tzinfo=UTC)
VERDICTS = st.sampled_from(["drift", "stable", "not_enough_data", "incomparable"])


def nothing(event: Event) -> Start:
    def start(connection: Connection) -> str:
        return event.monitor

    return start


def trigger(when: When = "drift_with_harm", **options: Any) -> Trigger:
    return Trigger("again", when, nothing, **options)


def run(
    verdicts: list[Verdict], harms: list[bool] | None = None, *, given: Trigger | None = None
) -> list[Judged]:
    """Let a window of each verdict pass, an hour each."""
    judged: list[Judged] = []
    seen: list[bool] = []
    for number, verdict in enumerate(verdicts):
        now = START + timedelta(hours=number)
        seen.append(bool(harms and harms[number]))
        alarm = is_alarm(judged, verdict, Patience())
        state = State(alarm, seen[-1], is_confirmed(seen, Patience()))
        judged.append(Judged(now, verdict, alarm, decide(given, judged, state, now=now)))
    return judged


def acts(judged: list[Judged]) -> list[str]:
    return [each.action for each in judged if each.action is not None]


def test_an_alarm_is_told_once_and_its_end_once() -> None:
    judged = run(["drift", "drift", "stable", "drift", "stable", "stable", "stable", "stable"])
    assert acts(judged) == ["ticket", "resolved"]


def test_drift_alone_starts_nothing_and_harm_alone_neither() -> None:
    assert acts(run(["drift"] * 50, given=trigger())) == ["ticket"]
    assert acts(run(["stable"] * 10, [True] * 10, given=trigger())) == []


def test_harm_that_shows_later_starts_once() -> None:
    harms = [False, False, False, True, True, True]
    assert acts(run(["drift"] * 6, harms, given=trigger())) == ["ticket", "started"]


def test_without_a_trigger_harm_beside_drift_is_told_once() -> None:
    harms = [False, False, False, True, True, False]
    assert acts(run(["drift"] * 6, harms)) == ["ticket", "harm"]


def test_a_trigger_on_drift_starts_when_the_alarm_is_raised() -> None:
    assert acts(run(["drift"] * 5, given=trigger("drift"))) == ["started"]


def test_a_trigger_on_harm_needs_no_drift_but_several_windows() -> None:
    once = [False, True, False, False, True, False]
    assert acts(run(["stable"] * 6, once, given=trigger("harm"))) == []
    twice = [False, True, False, True, True, True]
    assert acts(run(["stable"] * 6, twice, given=trigger("harm"))) == ["started", "suppressed"]
    drifting: list[Verdict] = ["drift"] * 6
    assert acts(run(drifting, [False] * 6, given=trigger("harm"))) == ["ticket"]


def test_within_the_cool_down_another_start_is_suppressed_and_said_once() -> None:
    verdicts: list[Verdict] = ["drift", "drift", "stable", "stable", "stable", *["drift"] * 4]  # type: ignore[list-item]
    harms = [True] * 9
    assert acts(run(verdicts, harms, given=trigger())) == ["started", "resolved", "suppressed"]
    short = trigger(cool_down_seconds=5 * 3600)
    assert acts(run(verdicts, harms, given=short)) == ["started", "resolved", "started"]


def test_harm_that_lasts_longer_than_the_cool_down_starts_again() -> None:
    judged = run(["drift"] * 30, [True] * 30, given=trigger(cool_down_seconds=10 * 3600))
    assert acts(judged).count("started") == 3


@pytest.mark.parametrize("when", ["drift", "harm", "drift_with_harm"])
@settings(max_examples=25)
@given(steps=st.lists(st.tuples(VERDICTS, st.booleans()), max_size=60))
def test_starts_are_a_cool_down_apart_and_tickets_an_alarm(
    when: When, steps: list[tuple[Verdict, bool]]
) -> None:
    judged = run([each for each, _ in steps], [harm for _, harm in steps], given=trigger(when))
    started = [each.at for each in judged if each.action == "started"]
    gaps = [later - earlier for earlier, later in zip(started, started[1:], strict=False)]
    assert all(gap >= timedelta(hours=24) for gap in gaps)
    edges = [False, *[each.is_alarm for each in judged]]
    raised = sum(now and not was for was, now in zip(edges, edges[1:], strict=False))
    assert acts(judged).count("ticket") <= raised
    assert acts(judged).count("resolved") in {raised, raised - 1}

"""Alarms: several windows raise one, several end it; a sure one needs no other."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from monitoring.alarm import Judged, Patience, is_alarm, is_confirmed
from monitoring.findings import Verdict

START = datetime(2026, 11, 29, tzinfo=UTC)


def run(verdicts: list[Verdict], *, sure: int | None = None) -> list[bool]:
    """Return whether there is an alarm after each window, one of which may be sure."""
    judged: list[Judged] = []
    for number, verdict in enumerate(verdicts):
        alarm = is_alarm(judged, verdict, Patience(), is_sure=number == sure)
        judged.append(Judged(START + timedelta(hours=number), verdict, alarm))
    return [each.is_alarm for each in judged]


def test_one_window_with_drift_is_no_alarm_and_two_of_three_are() -> None:
    assert not any(run(["drift", "stable", "stable", "drift", "stable"]))
    assert run(["drift", "stable", "drift"]) == [False, False, True]


def test_a_stable_window_raises_no_alarm_whatever_came_before() -> None:
    assert run(["drift", "stable"], sure=1) == [False, False]


def test_an_alarm_ends_after_three_stable_windows() -> None:
    alarms = run(["drift", "drift", "stable", "drift", "stable", "stable", "stable", "stable"])
    assert alarms == [False, *[True] * 5, False, False]


def test_windows_that_say_nothing_neither_raise_nor_end_an_alarm() -> None:
    assert not any(run(["drift", "not_enough_data", "incomparable"]))
    quiet: list[Verdict] = ["not_enough_data"] * 20
    assert all(run(["drift", "drift", *quiet])[1:])


def test_a_sure_window_needs_no_other_to_confirm_it() -> None:
    assert run(["stable", "drift", "stable"], sure=1) == [False, True, True]


def test_harm_is_confirmed_by_as_many_windows_as_drift_is() -> None:
    assert not is_confirmed([], Patience())
    assert not is_confirmed([False, False, True], Patience())
    assert is_confirmed([True, False, True], Patience())
    assert not is_confirmed([True, True, False, False, True], Patience())


def test_patience_is_a_frozen_value() -> None:
    with pytest.raises(AttributeError):
        Patience().confirm = 9  # type: ignore[misc]

"""Alarms: several windows raise one, several end it, and what they lead to happens once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitoring.alarm import Judged, Patience, action, is_alarm
from monitoring.findings import Verdict

START = datetime(2026, 11, 29, tzinfo=UTC)
VERDICTS = st.sampled_from(["drift", "stable", "not_enough_data", "incomparable"])


def run(
    verdicts: list[Verdict], harms: list[bool] | None = None, **patience: object
) -> list[Judged]:
    chosen = Patience(**patience)  # type: ignore[arg-type]
    judged: list[Judged] = []
    for number, verdict in enumerate(verdicts):
        now = START + timedelta(hours=number)
        alarm = is_alarm(judged, verdict, chosen)
        harm = bool(harms and harms[number])
        led_to = action(judged, alarm, has_harm=harm, now=now, patience=chosen)
        judged.append(Judged(now, verdict, alarm, led_to))
    return judged


def acts(judged: list[Judged]) -> list[str]:
    return [each.action for each in judged if each.action is not None]


def test_one_window_with_drift_is_no_alarm_and_two_of_three_are() -> None:
    assert acts(run(["drift", "stable", "stable", "drift", "stable"])) == []
    assert acts(run(["drift", "stable", "drift"])) == ["ticket"]


def test_an_alarm_ends_after_three_stable_windows_and_is_told_once() -> None:
    judged = run(["drift", "drift", "stable", "drift", "stable", "stable", "stable", "stable"])
    assert acts(judged) == ["ticket", "resolved"]
    assert [each.is_alarm for each in judged] == [False, *[True] * 5, False, False]


def test_windows_that_say_nothing_neither_raise_nor_end_an_alarm() -> None:
    assert acts(run(["drift", "not_enough_data", "incomparable"])) == []
    quiet: list[Verdict] = ["not_enough_data"] * 20
    assert acts(run(["drift", "drift", *quiet])) == ["ticket"]


def test_drift_alone_never_starts_a_pipeline_and_harm_alone_neither() -> None:
    assert "pipeline" not in acts(run(["drift"] * 50))
    assert acts(run(["stable"] * 10, [True] * 10)) == []


def test_harm_that_shows_later_starts_the_pipeline_once() -> None:
    assert acts(run(["drift"] * 6, [False, False, False, True, True, True])) == [
        "ticket",
        "pipeline",
    ]


def test_within_the_cool_down_another_start_is_suppressed_and_said_once() -> None:
    verdicts: list[Verdict] = ["drift", "drift", "stable", "stable", "stable", *["drift"] * 4]  # type: ignore[list-item]
    harms = [True] * 9
    assert acts(run(verdicts, harms)) == ["pipeline", "resolved", "suppressed"]
    short = run(verdicts, harms, cool_down=timedelta(hours=5))
    assert acts(short) == ["pipeline", "resolved", "pipeline"]


@given(st.lists(st.tuples(VERDICTS, st.booleans()), max_size=60))
def test_pipelines_are_a_cool_down_apart_and_tickets_an_alarm(
    steps: list[tuple[Verdict, bool]],
) -> None:
    judged = run([verdict for verdict, _ in steps], [harm for _, harm in steps])
    started = [each.at for each in judged if each.action == "pipeline"]
    gaps = [later - earlier for earlier, later in zip(started, started[1:], strict=False)]
    assert all(gap >= timedelta(hours=24) for gap in gaps)
    edges = [False, *[each.is_alarm for each in judged]]
    raised = sum(now and not was for was, now in zip(edges, edges[1:], strict=False))
    assert acts(judged).count("ticket") <= raised
    assert acts(judged).count("resolved") in {raised, raised - 1}


def test_patience_is_a_frozen_value() -> None:
    with pytest.raises(AttributeError):
        Patience().confirm = 9  # type: ignore[misc]

"""Streams that are followed from look to look: sure once, quiet else, and over when it is over."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from infra.errors import InvalidRequest, NotFound
from monitoring import streams
from monitoring.streams import Stream
from monitoring.windows import Window

START = datetime(2026, 11, 29, tzinfo=UTC)
HOUR = timedelta(hours=1)
ROWS = 200


class Traffic:
    """Values of hours that are over, and looks at the end of each."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.rng = np.random.default_rng(0)
        self.reference = Window.of({"score": self.rng.normal(size=2_000)})
        self.hours: list[Any] = []
        self.told: Sequence[dict[str, Any]] = ()
        self.missing = 0.0
        """Share of values that are not there."""

    def since(self, moment: datetime, columns: Sequence[str]) -> Window:
        assert columns == [self.stream.column]
        first = round((moment - START) / HOUR)
        return Window.of({"score": np.concatenate(self.hours[first:])})

    def hour(self, shift: float = 0.0) -> streams.Standing:
        values = self.rng.normal(loc=shift, size=ROWS)
        values[self.rng.random(ROWS) < self.missing] = np.nan
        self.hours.append(values)
        start = START + (len(self.hours) - 1) * HOUR
        (found,) = streams.look(
            [self.stream], self.reference, self.since, before=self.told, start=start
        )
        self.told = [found.told()]
        return found


@pytest.mark.parametrize("detector", ["e_detector", "adwin", "page_hinkley"])
def test_a_shift_too_small_for_one_window_is_found_over_several(detector: str) -> None:
    parameters = {"horizon": 3_000, **({"tolerance": 0.005} if detector == "page_hinkley" else {})}
    traffic = Traffic(Stream("score", detector, parameters))
    assert [traffic.hour().verdict for _ in range(3)] == ["stable"] * 3
    verdicts = [traffic.hour(0.4).verdict for _ in range(6)]
    assert "drift" in verdicts


def test_a_quiet_stream_says_nothing_for_longer_than_its_horizon() -> None:
    traffic = Traffic(Stream("score", "e_detector", {"horizon": 1_000, "level": 0.01}))
    found = [traffic.hour() for _ in range(20)]
    assert {each.verdict for each in found} == {"stable"}
    assert max(each.seen for each in found) == 1_000
    assert found[5].since == START + 5 * HOUR, "the horizon was seen: another watch begins"


def test_a_stream_with_missing_values_begins_anew_and_finds_what_comes_after() -> None:
    traffic = Traffic(Stream("score", "e_detector", {"horizon": 400}))
    traffic.missing = 0.5
    quiet = [traffic.hour() for _ in range(6)]
    assert {each.verdict for each in quiet} == {"stable"}
    assert quiet[-1].since > START, "the horizon was seen: another watch began"
    assert any(traffic.hour(1.0).verdict == "drift" for _ in range(6))
    traffic.missing = 1.0
    assert traffic.hour().seen <= 400


def test_what_goes_on_stays_an_alarm_and_what_is_over_takes_as_long_to_be_so() -> None:
    traffic = Traffic(Stream("score", "e_detector", {"horizon": 5_000}))
    traffic.hour()
    found = traffic.hour(0.5)
    while found.verdict != "drift":
        found = traffic.hour(0.5)
    needed = found.finding.alarm_at
    assert needed is not None
    verdicts = [traffic.hour(0.5).verdict for _ in range(6)]
    assert set(verdicts) <= {"drift", "not_enough_data"}, "it is not over"
    while found.verdict != "drift" or found.needed == 0:
        found = traffic.hour(0.5)
    quiet = []
    while (found := traffic.hour()).verdict != "stable":
        assert found.is_undecided or found.verdict == "drift"
        quiet.append(found)
        assert len(quiet) < 30
    assert found.seen >= found.needed > 0
    assert traffic.hour().verdict == "stable"


def test_more_than_a_horizon_in_one_look_is_read_up_to_it() -> None:
    traffic = Traffic(Stream("score", "e_detector", {"horizon": 100}))
    assert traffic.hour().seen == 100


def test_what_cannot_be_followed_is_said() -> None:
    traffic = Traffic(Stream("score", "kolmogorov_smirnov"))
    with pytest.raises(InvalidRequest, match="watches streams"):
        traffic.hour()
    with pytest.raises(NotFound, match="speed"):
        Traffic(Stream("speed", "e_detector")).hour()
    few = Traffic(Stream("score", "e_detector"))
    few.reference = Window.of({"score": np.arange(10.0)})
    assert few.hour().verdict == "not_enough_data"

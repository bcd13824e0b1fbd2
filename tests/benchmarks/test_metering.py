"""The measurement of the meter measures something."""

from __future__ import annotations

from pathlib import Path

from benchmarks.metering import admit_and_settle_microseconds


def test_admitting_and_settling_is_timed(tmp_path: Path) -> None:
    best, median = admit_and_settle_microseconds(tmp_path, calls=500)
    assert 0 < best <= median

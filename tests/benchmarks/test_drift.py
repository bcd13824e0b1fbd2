"""The parts of the drift benchmark, on few streams."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import drift, drift_peer_delays, drift_peers, drift_streams, environments
from benchmarks.drift_streams import Shape, Stream
from benchmarks.options import Options


@pytest.mark.parametrize("shape", drift_streams.SHAPES)
def test_planted_changes_begin_where_they_are_said_to(shape: Shape) -> None:
    rng = np.random.default_rng(0)
    values = drift_streams.planted(shape, 10.0, 6_000, 2_000, rng)
    assert abs(values[:2_000].mean()) < 0.1
    assert np.abs(values[2_000:]).mean() > 4
    stream = Stream("", rng.normal(size=2_000), values)
    for name in ("e_detector", "kolmogorov_smirnov"):
        alarm = drift.first_alarm(name, stream)
        assert alarm is not None
        assert 2_000 < alarm <= 2_800


def test_a_peers_delay_is_that_of_its_first_alarm_after_the_change() -> None:
    alarms = np.zeros((50, 3), dtype=bool)
    alarms[3, 0] = alarms[10, 0] = alarms[14, 1] = True
    row = drift_peer_delays._delay("delay", "evidently", alarms.tolist())
    assert row.peer is not None
    assert row.peer.median == 1_000
    assert row.note == "1 of 3 missed, 1 alarmed before, in 0.033 of windows"
    none = drift_peer_delays._delay("delay", "evidently", np.zeros((50, 3)).tolist())
    assert (none.peer, none.note) == (None, "3 of 3 missed, 0 alarmed before, in 0.000 of windows")


def test_real_streams_have_their_changes_after_the_reference(shared_data: Path) -> None:
    streams = {stream.name: stream for stream in drift_streams.real(shared_data)}
    assert len(streams) == 5
    assert streams["sea_drift_generated"].changes == (5_000, 20_000, 35_000)
    assert streams["sea_stream (no drift)"].values.size == 30_000
    price = streams["elec2, vicprice"]
    (change,) = price.changes
    assert price.values[:change].std() < price.values[change:].std() / 2


def test_a_table_is_checked_in_a_process_whose_time_and_memory_are_counted(tmp_path: Path) -> None:
    rows = list(drift._speed(Options(folder=tmp_path, quick=True)))
    assert [row.unit for row in rows] == ["s", "s", "MiB"]
    assert all(row.ours is not None and row.ours.median > 0 for row in rows)


def test_peers_that_are_not_installed_are_said_to_be_absent(tmp_path: Path) -> None:
    rows = list(drift_peers.rows(Options(folder=tmp_path, environments=tmp_path / "none")))
    assert [(row.peer_name, row.note) for row in rows] == [
        (name, environments.NOT_INSTALLED) for name in drift_peers.PEERS
    ]

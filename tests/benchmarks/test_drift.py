"""The parts of the drift benchmark, on few streams."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import drift, drift_peers, drift_streams, environments
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

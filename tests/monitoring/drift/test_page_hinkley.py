from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from infra.errors import InvalidRequest
from monitoring.detector import open_detector
from monitoring.drift.page_hinkley import threshold


def test_a_level_that_the_simulated_streams_cannot_tell_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="level"):
        open_detector("page_hinkley", {"level": 0.001})
    with pytest.raises(InvalidRequest, match=r"Level 0\.001 is below"):
        threshold(100, 0.001, 0.02)
    assert open_detector("page_hinkley", {"level": 0.005})


def test_a_lower_level_has_a_higher_threshold_down_to_the_lowest() -> None:
    found = [threshold(200, level, 0.02) for level in (0.0047, 0.01, 0.05, 0.2)]
    assert (np.diff(found) < 0).all()


def test_memory_of_the_simulation_does_not_grow_with_the_horizon() -> None:
    tracemalloc.start()
    try:
        threshold(20_000, 0.05, 0.02)
        assert tracemalloc.get_traced_memory()[1] < 90e6
    finally:
        tracemalloc.stop()

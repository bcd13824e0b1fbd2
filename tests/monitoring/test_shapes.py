from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from infra.errors import InvalidRequest
from monitoring import watch
from monitoring.alarm import Judged
from monitoring.shapes import Change, name_shape
from monitoring.watch_results import Result

WINDOWS = np.arange(40)
NOISE = 0.01


def named(truth: Any, seed: int = 0) -> Change:
    rng = np.random.default_rng(seed)
    errors = np.full(len(truth), NOISE)
    return name_shape(truth + rng.normal(scale=NOISE, size=len(truth)), errors, seed=seed)


def test_a_window_whose_bounds_are_one_number_hides_no_change_of_the_others() -> None:
    def told(estimate: float, reach: float) -> dict[str, Any]:
        return {"metric": "m", "estimate": estimate, "low": estimate - reach, "high": estimate}

    at = datetime(2026, 11, 30, tzinfo=UTC)
    metrics = [
        told(0.9 if number < 6 else 0.5, 0.0 if number == 2 else 0.05) for number in range(12)
    ]
    before = [Result("m", Judged(at, "stable", False), {"performance": [each]}) for each in metrics]
    shape = watch._shape(metrics[-1], before)
    assert shape is not None
    assert shape["shape"] == "instantaneous"
    assert watch._shape(told(1.0, 0.0), before[2:3] * 12) is None


def test_a_jump_is_instantaneous_and_dated() -> None:
    found = named(np.where(WINDOWS < 25, 0.9, 0.85))
    assert found.shape == "instantaneous"
    assert found.start == 25
    assert found.before == pytest.approx(0.9, abs=0.01)
    assert found.after == pytest.approx(0.85, abs=0.01)
    assert "window 25" in found.explanation


def test_a_slide_is_gradual_with_its_ends() -> None:
    found = named(0.9 - 0.1 * np.clip((WINDOWS - 10) / 20, 0, 1))
    assert found.shape == "gradual"
    assert found.start is not None
    assert found.end is not None
    assert abs(found.start - 10) <= 4
    assert abs(found.end - 30) <= 4


def test_a_rhythm_is_cyclic_with_its_period() -> None:
    found = named(0.9 + 0.05 * np.sin(2 * np.pi * WINDOWS / 8))
    assert found.shape == "cyclic"
    assert found.period == pytest.approx(8, abs=0.6)
    assert found.swing == pytest.approx(0.05, abs=0.01)


def test_nothing_is_named_where_nothing_happened() -> None:
    shapes = [named(np.full(20, 0.9), seed).shape for seed in range(30)]
    false = sum(shape != "none" for shape in shapes)
    assert binom.sf(false - 1, 30, 0.05) > 1e-4


@pytest.mark.parametrize("shape", ["instantaneous", "gradual", "cyclic"])
def test_shapes_are_told_apart_most_of_the_time(shape: str) -> None:
    right = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        at = rng.integers(10, 25)
        truth = {
            "instantaneous": np.where(at > WINDOWS, 0.9, 0.84),
            "gradual": 0.9 - 0.08 * np.clip((WINDOWS - at + 8) / 16, 0, 1),
            "cyclic": 0.9 + 0.04 * np.sin(2 * np.pi * (WINDOWS + at) / 10),
        }[shape]
        right += named(truth, seed).shape == shape
    assert right >= 8


def test_few_windows_have_no_shape_and_errors_are_needed() -> None:
    assert named(np.linspace(0, 1, 7)).shape == "not_enough_data"
    with pytest.raises(InvalidRequest, match="one above 0"):
        name_shape([1.0] * 10, [0.0] * 10)
    with pytest.raises(InvalidRequest, match="10 values and 9 errors"):
        name_shape([1.0] * 10, [1.0] * 9)

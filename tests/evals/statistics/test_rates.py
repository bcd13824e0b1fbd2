from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.statistics.rates import Rate
from infra.errors import InvalidRequest


def test_zero_faults_show_less_than_one_in_a_hundred_only_from_299_cases_on() -> None:
    assert Rate(298, 298).p_above(0.99) > 0.05
    assert Rate(299, 299).p_above(0.99) <= 0.05


@given(st.integers(1, 300), st.floats(0.01, 0.99), st.data())
def test_bounds_and_tests_say_the_same(cases: int, threshold: float, data: st.DataObject) -> None:
    rate = Rate(data.draw(st.integers(0, cases)), cases)
    found = rate.interval(0.9)
    if abs(threshold - found.low) > 1e-6 and rate.passes:
        assert (rate.p_above(threshold) <= 0.05) == (threshold < found.low)
    if abs(threshold - found.high) > 1e-6 and rate.passes < cases:
        assert (rate.p_below(threshold) <= 0.05) == (threshold > found.high)


def test_no_rate_is_above_one() -> None:
    assert Rate(500, 500).p_above(1.0) == pytest.approx(1.0)
    assert 0 < Rate(500, 500).p_above(0.0) < 1e-6


@pytest.mark.parametrize("threshold", [5.0, 1.01, -0.1, float("nan")])
def test_threshold_that_is_no_rate_is_refused_and_not_taken_for_the_nearest(
    threshold: float,
) -> None:
    rate = Rate(99, 100)
    for test in (rate.p_above, rate.p_below):
        with pytest.raises(InvalidRequest, match="between 0 and 1"):
            test(threshold)

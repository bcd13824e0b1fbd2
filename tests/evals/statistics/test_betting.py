from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.statistics.betting import bets
from infra.errors import InvalidRequest
from score_rows import t_interval


def test_truth_is_inside_at_all_times_at_once() -> None:
    """Looked at after every one of 500 cases; a t interval looked at like that is not."""
    rng, runs, lost, naive = np.random.default_rng(1), 250, 0, 0
    for run in range(runs):
        values = (rng.random(500) < 0.3).astype(float)
        found = bets(values)
        lost += min(found.p_above(0.3), found.p_below(0.3)) <= 0.025
        if run < 50:
            looks = (t_interval(values[:n]) for n in range(20, 501, 10))
            naive += any(not look.low <= 0.3 <= look.high for look in looks)
    assert lost / runs <= 0.05
    assert naive / 50 > 0.2


def test_bounds_only_ever_narrow_and_hold_what_the_p_values_say() -> None:
    values = np.random.default_rng(2).choice([-1.0, 0.0, 1.0], p=[0.05, 0.9, 0.05], size=600)
    looks = [bets(values[:n], bounds=(-1, 1)).interval(0.9) for n in range(10, 601, 10)]
    for before, after in pairwise(looks):
        assert before.low <= after.low
        assert before.high >= after.high
    found, last = bets(values, bounds=(-1, 1)), looks[-1]
    assert last.low <= values.mean() <= last.high
    assert found.p_above(last.low) <= 0.05
    assert found.p_above(last.low + 0.005) > 0.05
    assert found.p_below(last.high) <= 0.05
    assert found.p_below(last.high - 0.005) > 0.05


def test_a_regression_is_found_early() -> None:
    """Seven cases in a hundred got worse; the margin is 3."""
    rng = np.random.default_rng(4)
    values = -(rng.random(2_000) < 0.07).astype(float)
    looks = range(50, 2_001, 50)
    first = next(n for n in looks if bets(values[:n], bounds=(-1, 1)).p_below(-0.03) <= 0.05)
    assert 100 < first < 1_500


def test_few_cases_without_variation_are_no_proof() -> None:
    assert bets(np.zeros(50), bounds=(-1, 1)).p_above(-0.03) > 0.05
    assert bets(np.zeros(200), bounds=(-1, 1)).p_above(-0.03) < 0.05


def test_copies_in_a_cluster_are_no_evidence() -> None:
    values = np.random.default_rng(5).random(60)
    once = bets(values).p_above(0.4)
    copies = bets(np.repeat(values, 5), np.repeat(np.arange(60), 5))
    assert copies.p_above(0.4) == pytest.approx(once)


def test_clusters_with_one_opinion_keep_the_level() -> None:
    rng, runs, lost = np.random.default_rng(6), 400, 0
    for _ in range(runs):
        sizes = rng.integers(1, 9, size=60)
        ids = np.repeat(np.arange(60), sizes)
        values = (rng.random(60) < 0.5).astype(float)[ids]
        lost += bets(values, ids).p_above(0.5) <= 0.05
    assert lost / runs <= 0.05


@settings(max_examples=30)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.floats(0.05, 0.95))
def test_mirrored_values_have_mirrored_bounds(values: list[float], threshold: float) -> None:
    found = bets(values)
    mirror = bets(-np.asarray(values), bounds=(-1, 0))
    assert mirror.p_below(-threshold) == pytest.approx(found.p_above(threshold))
    interval = found.interval()
    assert 0 <= interval.low <= interval.high <= 1
    assert 0 < found.p_above(threshold) <= 1


@pytest.mark.parametrize("values", [[], [0.5, 1.2], [float("nan")]])
def test_values_outside_the_bounds_are_refused(values: list[float]) -> None:
    with pytest.raises(InvalidRequest, match="between"):
        bets(values)


def test_thresholds_at_the_bounds() -> None:
    found = bets([0.5, 0.6])
    assert found.p_above(1.0) == 1.0
    assert 0 < found.p_above(-0.1) < 1e-300

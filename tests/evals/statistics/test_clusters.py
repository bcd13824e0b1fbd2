from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.statistics import clusters
from evals.statistics.intervals import Floats
from infra.errors import InvalidRequest
from score_rows import t_interval


def test_naive_interval_lies_about_clusters_and_the_bootstrap_does_not() -> None:
    """Eight cases of each of 30 documents; seven tenths of the variance is the document's."""
    rng, naive, clustered, runs = np.random.default_rng(7), 0, 0, 200
    for run in range(runs):
        values, ids = _in_clusters(rng, 30, 8, 0.7)
        plain = t_interval(values)
        drawn = clusters.bootstrap(values, ids, resamples=499, seed=run).interval()
        naive += not plain.low <= 0 <= plain.high
        clustered += not drawn.low <= 0 <= drawn.high
    assert naive / runs > 0.30
    assert clustered / runs <= 0.07


@pytest.mark.parametrize(
    ("runs", "slack"), [(150, 0.05), pytest.param(500, 0.02, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("n", [30, 100, 300])
@pytest.mark.parametrize("shape", ["normal", "skewed"])
def test_bootstrap_covers_as_often_as_it_says(n: int, shape: str, runs: int, slack: float) -> None:
    rng, inside = np.random.default_rng(n), 0
    for run in range(runs):
        values = rng.normal(size=n) if shape == "normal" else rng.exponential(size=n) - 1
        found = clusters.bootstrap(values, resamples=499, seed=run).interval()
        inside += found.low <= 0 <= found.high
    assert abs(inside / runs - 0.95) <= slack


def test_clusters_of_one_case_are_no_clusters() -> None:
    values = np.random.default_rng(0).random(50)
    alone = clusters.bootstrap(values, np.arange(50), resamples=99)
    plain = clusters.bootstrap(values, resamples=99)
    assert alone.error == pytest.approx(plain.error)
    assert alone.interval() == plain.interval()


def test_error_is_the_usual_one_where_cases_stand_alone() -> None:
    values = np.random.default_rng(0).random(50)
    usual = values.std(ddof=1) / 50**0.5
    assert clusters.bootstrap(values, resamples=9).error == pytest.approx(usual)


def test_duplicating_every_case_in_its_cluster_changes_nothing() -> None:
    values, ids = np.random.default_rng(1).random(40), np.arange(40)
    once = clusters.bootstrap(values, ids, resamples=199)
    thrice = clusters.bootstrap(np.tile(values, 3), np.tile(ids, 3), resamples=199)
    assert thrice.interval().low == pytest.approx(once.interval().low)
    assert thrice.interval().high == pytest.approx(once.interval().high)


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.floats(-2, 2), st.floats(0.01, 0.4))
def test_a_bound_and_the_test_of_it_say_the_same(seed: int, threshold: float, tail: float) -> None:
    values, ids = _in_clusters(np.random.default_rng(seed), 12, 3, 0.5)
    drawn = clusters.bootstrap(values, ids, resamples=199, seed=seed)
    found = drawn.interval(1 - 2 * tail)
    if abs(threshold - found.low) > 1e-9:
        assert (drawn.p_above(threshold) <= tail) == (threshold < found.low)
    if abs(threshold - found.high) > 1e-9:
        assert (drawn.p_below(threshold) <= tail) == (threshold > found.high)
    assert found.low <= found.high
    assert 0 < drawn.p_above(threshold) <= 1


def test_p_is_never_zero() -> None:
    drawn = clusters.bootstrap(np.random.default_rng(0).normal(5, 1, size=300), resamples=999)
    assert drawn.p_above(0.0) == 1 / 1_000
    assert drawn.p_below(0.0) == 1.0


@pytest.mark.parametrize("values", [[1.0], [0.5] * 20, [1.0, float("nan")]])
def test_nothing_is_drawn_where_nothing_varies(values: list[float]) -> None:
    with pytest.raises(InvalidRequest):
        clusters.bootstrap(values)


def test_ids_for_other_values_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="one id per value"):
        clusters.bootstrap([1.0, 2.0], [1, 2, 3])


def _in_clusters(
    rng: np.random.Generator, groups: int, size: int, correlation: float
) -> tuple[Floats, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    ids = np.repeat(np.arange(groups), size)
    shared = rng.normal(0, correlation**0.5, size=groups)
    return shared[ids] + rng.normal(0, (1 - correlation) ** 0.5, size=ids.size), ids

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from evals.statistics import intervals
from evals.statistics.intervals import Interval
from infra.errors import InvalidRequest

Method = Callable[..., Interval]


def test_rates_have_the_published_bounds() -> None:
    """Agresti & Coull 1998, and the rule of three."""
    wilson = intervals.wilson(0, 10)
    assert (wilson.low, round(wilson.high, 4)) == (0.0, 0.2775)
    exact = intervals.clopper_pearson(0, 299, level=0.90)
    assert exact.high == pytest.approx(1 - 0.05 ** (1 / 299))
    assert exact.high < 0.01 < intervals.clopper_pearson(0, 298, level=0.90).high


@pytest.mark.parametrize("n", [30, 100, 300])
def test_wilson_covers_as_often_as_it_says(n: int) -> None:
    """On average over rates; at a single one it is up to two points off with 30 cases."""
    rates = np.linspace(0.05, 0.95, 37)
    coverages = [_coverage_of_rates(intervals.wilson, n, rate) for rate in rates]
    assert 0.94 <= np.mean(coverages) <= 0.96
    assert min(coverages) >= 0.91


@pytest.mark.parametrize("n", [30, 100, 300])
@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5, 0.99])
def test_clopper_pearson_never_covers_less_than_it_says(n: int, rate: float) -> None:
    assert _coverage_of_rates(intervals.clopper_pearson, n, rate) >= 0.95


def test_difference_of_rates_is_newcombes() -> None:
    """Newcombe 1998, method 10, example (a): 56/70 and 48/80."""
    first, second = intervals.wilson(48, 80), intervals.wilson(56, 70)
    gap = intervals.difference(first, second)
    assert (round(gap.low, 4), round(gap.high, 4)) == (0.0524, 0.3339)


def test_intervals_of_two_levels_are_not_subtracted() -> None:
    with pytest.raises(InvalidRequest, match=r"0\.9 and 0\.95"):
        intervals.difference(intervals.wilson(1, 2, level=0.9), intervals.wilson(1, 2))


@pytest.mark.parametrize("values", [[], [1.0], [[1.0, 2.0]], [1.0, math.nan], [1.0, math.inf]])
def test_what_has_no_interval_is_refused(values: list[float]) -> None:
    with pytest.raises(InvalidRequest):
        intervals.at_least_two(values)


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (3, 2), (-1, 2)])
def test_counts_that_are_no_rate_are_refused(successes: int, trials: int) -> None:
    with pytest.raises(InvalidRequest, match="no rate"):
        intervals.wilson(successes, trials)


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_rate_is_between_its_bounds(
    counts: tuple[int, int],
) -> None:
    for method in (intervals.wilson, intervals.clopper_pearson):
        found = method(*counts)
        assert 0 <= found.low <= found.estimate <= found.high <= 1


def _coverage_of_rates(method: Method, n: int, rate: float) -> float:
    """Exact: over every count, weighted with its probability."""
    counts = np.arange(n + 1)
    covered = [found.low <= rate <= found.high for found in _all_counts(method, n)]
    return float(binom.pmf(counts, n, rate) @ covered)


@functools.cache
def _all_counts(method: Method, n: int) -> list[Interval]:
    return [method(successes, n) for successes in range(n + 1)]

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import xlogy
from scipy.stats import binom, norm

from evals.statistics.matched_pairs import MatchedPairs
from infra.errors import InvalidRequest

MARGIN = -0.05


@pytest.mark.parametrize("counts", [(0, 1, 243), (12, 30, 300), (40, 40, 250), (0, 0, 400)])
@pytest.mark.parametrize("threshold", [-0.2, -0.03, 0.0, 0.05])
def test_score_is_that_of_the_likeliest_rates_found_by_search(
    counts: tuple[int, int, int], threshold: float
) -> None:
    """The p-value from Tango's closed form, beside a numerical search of the likelihood."""
    better, worse, n = counts

    def unlikelihood(rate: float) -> float:
        shares = [rate + threshold, rate, 1 - 2 * rate - threshold]
        return -float(np.sum(xlogy([better, worse, n - better - worse], shares)))

    limits = (max(0.0, -threshold) + 1e-12, (1 - threshold) / 2 - 1e-12)
    rate = minimize_scalar(unlikelihood, bounds=limits, options={"xatol": 1e-12}).x
    error = (n * (2 * rate + threshold - threshold**2)) ** 0.5
    z = (better - worse - n * threshold) / error if error > 1e-4 else 0.0
    assert MatchedPairs(*counts).p_above(threshold) == pytest.approx(norm.sf(z), abs=1e-4)


def test_no_change_among_few_is_no_proof_of_no_change() -> None:
    """With no case changed, 99 are needed to rule out that 3 in 100 got worse."""
    assert MatchedPairs(0, 0, 95).p_above(-0.03) > 0.05
    assert MatchedPairs(0, 0, 101).p_above(-0.03) <= 0.05
    assert MatchedPairs(0, 0, 62).interval(0.9).low < -0.03


def test_exact_test_is_never_wrong_more_often_than_it_says() -> None:
    """Exact: over all counts of 25 cases, for many rates of change."""
    n, counts = 25, _counts(25)
    rejected = [MatchedPairs(int(b), int(c), n).p_above(MARGIN) <= 0.05 for b, c in counts]
    sizes = [
        _chances(counts[rejected], n, rate + MARGIN, rate).sum()
        for rate in np.linspace(0.05, 0.5, 30)
    ]
    assert max(sizes) <= 0.05
    assert max(sizes) > 0.02  # it does reject


@pytest.mark.parametrize("rate", [0.06, 0.1, 0.2])
def test_score_interval_covers_as_often_as_it_says(rate: float) -> None:
    """Exact: over all counts of 300 cases."""
    n, inside = 300, 0.0
    counts = _counts(n, most=150)
    chances = _chances(counts, n, rate + MARGIN, rate)
    likely = chances > 1e-6
    for (better, worse), chance in zip(counts[likely].tolist(), chances[likely], strict=True):
        pairs = MatchedPairs(better, worse, n)
        covered = min(pairs.p_above(MARGIN), pairs.p_below(MARGIN)) > 0.025
        inside += chance * covered
    assert 0.93 <= inside <= 0.97


@settings(max_examples=12)
@given(st.tuples(*[st.integers(0, 30)] * 3).filter(any))
@example((15, 2, 29))  # of which the p-value falls again a hundredth above the bound
def test_a_bound_and_the_test_of_it_say_the_same(counts: tuple[int, int, int]) -> None:
    better, worse, unchanged = counts
    pairs = MatchedPairs(better, worse, better + worse + unchanged)
    found = pairs.interval(0.9)
    assert -1 <= found.low <= found.estimate <= found.high <= 1
    mirror = pairs.mirror.interval(0.9)
    assert (mirror.low, mirror.high) == (-found.high, -found.low)
    # An exact p-value does not rise evenly with the threshold: further off it goes to and fro.
    last_step = (1 + found.estimate) / 2**16
    if found.low > -1:
        assert pairs.p_above(found.low) <= 0.05
    assert pairs.p_above(found.low + last_step) > 0.045


@settings(max_examples=25)
@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 400), st.floats(-0.9, 0.9))
@example(1, 0, 1, 5e-324)
@example(0, 3, 9, 1e-310)
def test_p_is_a_probability_and_never_zero(b: int, c: int, same: int, threshold: float) -> None:
    if b + c + same:
        assert 0 < MatchedPairs(b, c, b + c + same).p_above(threshold) <= 1


@settings(max_examples=25)
@given(st.integers(0, 80), st.integers(0, 80), st.integers(0, 120), st.floats(-0.9, 0.9))
@example(0, 90, 0, -0.1)
def test_a_difference_beyond_the_threshold_is_no_evidence_against_it(
    b: int, c: int, same: int, threshold: float
) -> None:
    pairs = MatchedPairs(b, c, b + c + same + 1)
    if pairs.estimate <= threshold:
        assert pairs.p_above(threshold) >= 0.2
    if pairs.estimate >= threshold:
        assert pairs.p_below(threshold) >= 0.2


@pytest.mark.parametrize("n", [10, 90, 200, 201])
def test_nothing_that_passed_before_passes_now(n: int) -> None:
    pairs = MatchedPairs(0, n, n)
    assert pairs.p_above(-0.1) == pytest.approx(1.0)
    assert pairs.p_below(-0.1) < 0.01
    assert pairs.mirror.p_above(-0.1) < 0.01


def test_exact_and_score_agree_where_one_takes_over_from_the_other() -> None:
    exact, score = MatchedPairs(15, 20, 200), MatchedPairs(15, 20, 201)
    assert exact.exact
    assert not score.exact
    assert exact.p_above(-0.08) == pytest.approx(score.p_above(-0.08), abs=0.01)


@pytest.mark.parametrize("counts", [(-1, 0, 5), (3, 3, 5), (0, 0, 0)])
def test_counts_that_cannot_be_are_refused(counts: tuple[int, int, int]) -> None:
    with pytest.raises(InvalidRequest):
        MatchedPairs(*counts)


def _counts(n: int, most: int | None = None) -> npt.NDArray[np.int64]:
    """Return how many got better and how many got worse, (counts, 2)."""
    top = n if most is None else most
    return np.array([(b, c) for b in range(top + 1) for c in range(top + 1 - b)])


def _chances(
    counts: npt.NDArray[np.int64], n: int, better: float, worse: float
) -> npt.NDArray[np.float64]:
    better = max(better, 0.0)
    rest = min(1.0, worse / (1 - better))
    b, c = counts.T
    found: npt.NDArray[np.float64] = binom.pmf(b, n, better) * binom.pmf(c, n - b, rest)
    return found

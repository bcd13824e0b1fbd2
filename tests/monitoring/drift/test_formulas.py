"""Detectors beside other people's implementations and plain loops."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import jensenshannon
from threadpoolctl import threadpool_limits

from monitoring.columns import Column
from monitoring.detector import TwoSampleDetector, open_detector
from monitoring.drift import _cells, mmd
from monitoring.drift._chance import by_permutation
from monitoring.drift.chi_squared import statistic as chi_squared
from monitoring.findings import Finding


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads of several tests would wait for each other's."""
    with threadpool_limits(1):
        yield


def compare(name: str, reference: Any, current: Any, **parameters: Any) -> Finding:
    detector = cast("TwoSampleDetector", open_detector(name, parameters))
    return detector.compare(Column.of(reference), Column.of(current))


@pytest.fixture
def pair() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    return rng.normal(size=300), rng.normal(loc=0.3, scale=1.2, size=200)


def test_distance_of_kolmogorov_and_smirnov_is_that_of_scipy(pair: Any) -> None:
    found = compare("kolmogorov_smirnov", *pair)
    theirs = stats.ks_2samp(*pair)
    assert found.statistic == pytest.approx(theirs.statistic)
    assert found.p_value == pytest.approx(theirs.pvalue)


def test_windows_that_are_too_alike_for_counting_paths_have_a_p_value_all_the_same() -> None:
    found = compare("kolmogorov_smirnov", [0] * 200 + [1] * 200, [0] * 195 + [1] * 205)
    assert found.verdict == "stable"
    assert found.p_value == pytest.approx(1.0)


def test_distance_counted_into_cells_is_almost_that_of_all_values_and_never_larger() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=200_000), rng.normal(loc=0.1, size=100_000)
    found = compare("kolmogorov_smirnov", first, second)
    exact = stats.ks_2samp(first, second, method="asymp").statistic
    assert found.statistic is not None
    assert exact - 0.001 <= found.statistic <= exact + 1e-12


def test_wasserstein_of_few_distinct_values_is_that_of_scipy() -> None:
    rng = np.random.default_rng(2)
    first, second = rng.integers(50, size=400), rng.integers(5, 60, size=300)
    found = compare("wasserstein", first, second)
    theirs = stats.wasserstein_distance(first, second) / first.std()
    assert found.statistic == pytest.approx(theirs)


def test_wasserstein_sees_an_outlier_in_the_tail() -> None:
    rng = np.random.default_rng(3)
    first, second = rng.normal(size=100_000), rng.normal(size=20_000)
    second[:40] += 300
    found = compare("wasserstein", first, second)
    assert found.verdict == "drift"
    exact = stats.wasserstein_distance(first, second)
    assert found.statistic is not None
    assert 0.6 * exact < found.statistic <= 1.01 * exact  # a cell holds some that are no outliers


def test_chi_squared_is_that_of_scipy_and_does_not_shrink_with_the_reference() -> None:
    rng = np.random.default_rng(4)
    old = rng.choice(["a", "b", "c"], size=900, p=[0.5, 0.3, 0.2])
    new = rng.choice(["a", "b", "c"], size=600, p=[0.4, 0.4, 0.2])
    found = compare("chi_squared", list(old), list(new))
    table = [[(side == label).sum() for label in "abc"] for side in (old, new)]
    theirs = stats.chi2_contingency(table, correction=False)
    assert found.statistic == pytest.approx(theirs.statistic)
    assert found.p_value == pytest.approx(theirs.pvalue)
    effects = []
    for rows in (1_000, 200_000):
        old = rng.choice(["a", "b"], size=rows, p=[0.5, 0.5])
        new = rng.choice(["a", "b"], size=1_000, p=[0.7, 0.3])
        effects.append(compare("chi_squared", list(old), list(new)).effect)
    assert effects[0] == pytest.approx(0.4, abs=0.1)
    assert effects[1] == pytest.approx(0.4, abs=0.1)


def test_jensen_shannon_of_many_rows_is_that_of_scipy() -> None:
    rng = np.random.default_rng(5)
    weights = [0.1, 0.2, 0.3, 0.4]
    old, new = rng.choice(4, size=200_000, p=weights), rng.choice(4, size=200_000, p=weights[::-1])
    found = compare("jensen_shannon", [*map(str, old)], [*map(str, new)])
    theirs = jensenshannon(np.bincount(old), np.bincount(new), base=2)
    assert found.effect == pytest.approx(theirs, rel=0.01)


def test_stability_index_is_the_sum_of_the_textbook_and_its_mean_grows_in_small_windows() -> None:
    old, new = ["a"] * 6_000 + ["b"] * 4_000, ["a"] * 4_000 + ["b"] * 6_000
    found = compare("psi", old, new)
    assert found.statistic == pytest.approx(0.4 * np.log(1.5), rel=0.001)
    rng = np.random.default_rng(6)
    same = [compare("psi", *rng.normal(size=(2, 100)), seed=n) for n in range(40)]
    seen = [finding.statistic or 0.0 for finding in same]
    assert np.mean(seen) > 0.1  # what is called drift by custom
    assert sum(finding.is_drift for finding in same) <= 7
    assert np.mean([finding.effect or 0.0 for finding in same]) < 0.05


def test_permuting_counts_is_permuting_rows() -> None:
    rng = np.random.default_rng(7)
    first, second = rng.integers(6, size=80), rng.integers(1, 7, size=60)
    cells = _cells.of_numbers(first.astype(float), second.astype(float), seed=0)
    fast = by_permutation(cells, chi_squared, draws=1_999, seed=1)
    pooled, above = np.concatenate([first, second]), 0
    for _ in range(1_999):
        rng.shuffle(pooled)
        sides = [np.bincount(side, minlength=7)[None, :] for side in (pooled[:80], pooled[80:])]
        above += chi_squared(*sides)[0] >= fast.statistic - 1e-9
    assert fast.p_value == pytest.approx((1 + above) / 2_000, abs=0.03)


def test_draws_that_end_early_leave_the_p_value_uniform() -> None:
    rng = np.random.default_rng(8)
    found = []
    for seed in range(300):
        counts = rng.multinomial(200, [0.05] * 20, size=2)
        cells = _cells.Cells(counts[0], counts[1])
        found.append(by_permutation(cells, chi_squared, draws=999, seed=seed).p_value)
    for level in (0.05, 0.1, 0.25, 0.5):
        below = int((np.array(found) <= level).sum())
        assert stats.binom.cdf(below, 300, level) > 1e-4
        assert stats.binom.sf(below - 1, 300, level) > 1e-4
    assert min(found) > 0


def test_cells_hold_every_row_and_know_no_label() -> None:
    rng = np.random.default_rng(9)
    first, second = rng.lognormal(size=100_000), rng.lognormal(size=30_000)
    cells = _cells.of_numbers(first, second, seed=3)
    assert (cells.reference.sum(), cells.current.sum()) == (100_000, 30_000)
    assert cells.positions is not None
    assert (np.diff(cells.positions) > 0).all()
    assert cells.reference.size <= _cells.FINE
    swapped = _cells.of_numbers(first[:10_000], second[:10_000], seed=3)
    other = _cells.of_numbers(second[:10_000], first[:10_000], seed=3)
    assert (swapped.reference == other.current).all()
    coarse = cells.coarser(10)
    assert coarse.reference.size == 10
    assert coarse.pooled.max() < 1.2 * coarse.pooled.min()


def test_more_categories_than_there_may_be_are_counted_as_one() -> None:
    rng = np.random.default_rng(100)
    texts = [str(n) for n in rng.integers(5_000, size=20_000)]
    cells = _cells.of_categories(Column.of(texts[:10_000]), Column.of(texts[10_000:]))
    assert 100 < cells.reference.size <= _cells.MOST_CATEGORIES + 1
    assert cells.labels[-1] == _cells.REST
    assert cells.pooled.sum() == 20_000
    ids = [f"id {n}" for n in range(4_000)]
    for name in ("chi_squared", "psi", "jensen_shannon"):
        found = compare(name, ids[:2_000], ids[2_000:])
        assert (found.verdict, found.p_value) == ("stable", 1.0)
    halves = texts[:10_000], texts[10_000:]
    assert compare("chi_squared", *halves, level=0.001).verdict == "stable"


def test_mean_discrepancy_is_that_of_a_plain_loop() -> None:
    rng = np.random.default_rng(11)
    points = rng.normal(size=(30, 3))
    kernel = mmd.gaussian(points)
    labels = np.zeros((30, 1))
    labels[18:] = 1
    now, old = range(18, 30), range(18)
    within = np.mean([kernel[i, j] for i in now for j in now if i != j])
    before = np.mean([kernel[i, j] for i in old for j in old if i != j])
    between = np.mean([kernel[i, j] for i in now for j in old])
    expected = within + before - 2 * between
    assert mmd.discrepancies(kernel, labels)[0] == pytest.approx(expected)


def test_p_values_of_the_kernel_test_are_uniform_without_drift() -> None:
    """A rule of a peer takes the 5th percentile for the 95th, and alarms every time."""
    rng = np.random.default_rng(12)
    found = [
        compare("mmd", *rng.normal(size=(2, 60, 16)), draws=99, seed=n).p_value for n in range(120)
    ]
    assert stats.kstest([p or 0 for p in found], "uniform").pvalue > 0.001


def test_classifier_names_the_features_that_moved_and_the_rows_that_moved_most() -> None:
    rng = np.random.default_rng(13)
    old, new = rng.normal(size=(1_000, 6)), rng.normal(size=(800, 6))
    new[:, 2] += 0.8
    new[:, 4] *= 2.0
    new[17, 2] += 6
    reference, current = (
        Column("vectors", side, ("a", "b", "c", "d", "e", "f")) for side in (old, new)
    )
    detector = cast("TwoSampleDetector", open_detector("classifier_two_sample"))
    found = detector.compare(reference, current)
    assert found.verdict == "drift"
    assert {cause.name for cause in found.causes[:2]} == {"c", "e"}
    assert sum(cause.share for cause in found.causes) == pytest.approx(1, abs=0.1)
    assert all(0 <= place < 800 for place in found.examples)


@pytest.mark.parametrize("name", ["classifier_two_sample", "mmd"])
def test_vectors_without_a_dimension_cannot_be_compared(name: str) -> None:
    assert compare(name, np.empty((60, 0)), np.empty((60, 0))).verdict == "incomparable"


def test_classifier_sees_spread_alone_and_wide_vectors() -> None:
    rng = np.random.default_rng(14)
    narrow, wide = rng.normal(size=(500, 3)), rng.normal(scale=1.6, size=(500, 3))
    assert compare("classifier_two_sample", narrow, wide, draws=99).verdict == "drift"
    old, new = rng.normal(size=(600, 384)), rng.normal(size=(600, 384))
    old[:, :3] *= 5
    new[:, :3] *= 5
    assert compare("classifier_two_sample", old, new, draws=199).verdict == "stable"
    assert compare("classifier_two_sample", old, new + 0.5, draws=199).verdict == "drift"

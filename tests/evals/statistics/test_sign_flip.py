from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kstest, permutation_test

from evals.statistics.sign_flip import sign_flip


def test_p_is_that_of_scipy() -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(0.15, 1, size=60)
    theirs = permutation_test(
        (values,),
        np.sum,
        permutation_type="samples",
        vectorized=True,
        alternative="two-sided",
        rng=rng,
        n_resamples=9_999,
    ).pvalue
    assert sign_flip(values) == pytest.approx(theirs, abs=0.02)


def test_p_is_uniform_where_nothing_changed() -> None:
    rng = np.random.default_rng(4)
    found = [sign_flip(rng.normal(size=40), resamples=999, seed=run) for run in range(400)]
    assert kstest(found, "uniform").pvalue > 0.01


def test_clusters_flip_as_a_whole() -> None:
    """Copies of a case are not more evidence."""
    values, ids = np.linspace(-1, 2, 20), np.arange(20)
    once = sign_flip(values, ids)
    assert sign_flip(np.tile(values, 9), np.tile(ids, 9)) == pytest.approx(once, abs=1e-9)
    assert sign_flip(np.tile(values, 9)) < once / 10 < 0.01


def test_p_is_never_zero() -> None:
    assert sign_flip(np.full(50, 1.0), resamples=999) == 1 / 1_000


def test_nothing_changed_is_no_evidence() -> None:
    assert sign_flip(np.zeros(50)) == 1.0

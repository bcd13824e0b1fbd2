from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from evals.statistics.multiplicity import benjamini_hochberg, holm
from infra.errors import InvalidRequest

P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=12)


@pytest.mark.parametrize("seed", range(5))
def test_adjusted_values_are_those_of_statsmodels(seed: int) -> None:
    p = np.random.default_rng(seed).random(9) ** 3
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1])
    assert benjamini_hochberg(p) == pytest.approx(multipletests(p, method="fdr_bh")[1])


@settings(max_examples=25)
@given(P_VALUES, st.randoms(use_true_random=False))
def test_adjusted_values_follow_their_tests_and_never_fall(p: list[float], random) -> None:  # type: ignore[no-untyped-def]
    order = list(range(len(p)))
    random.shuffle(order)
    for adjust in (holm, benjamini_hochberg):
        adjusted = adjust(p)
        assert (adjusted >= np.asarray(p) - 1e-12).all()
        assert (adjusted <= 1).all()
        assert adjust([p[i] for i in order]).tolist() == adjusted[order].tolist()
    assert (holm(p) >= benjamini_hochberg(p) - 1e-12).all()


def test_one_test_is_not_adjusted() -> None:
    assert holm([0.04]).tolist() == benjamini_hochberg([0.04]).tolist() == [0.04]
    assert holm([]).size == 0


def test_holm_keeps_the_chance_of_any_false_alarm() -> None:
    """Ten tests, four of which find something that is there."""
    rng, runs, alarms, found = np.random.default_rng(0), 4_000, 0, 0
    for _ in range(runs):
        p = rng.random(10)
        p[:4] *= 1e-3
        adjusted = holm(p)
        alarms += (adjusted[4:] <= 0.05).any()
        found += (adjusted[:4] <= 0.05).all()
    assert 0.03 <= alarms / runs <= 0.06
    assert found / runs > 0.95


def test_what_is_no_probability_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="not p-values"):
        holm([0.5, float("nan")])

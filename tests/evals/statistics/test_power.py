from __future__ import annotations

import math

import numpy as np
import pytest
from statsmodels.stats.power import normal_sample_size_one_tail

from evals.statistics.matched_pairs import MatchedPairs
from evals.statistics.power import design_effect, intraclass, needed, needed_without_fault
from infra.errors import InvalidRequest

DISCORDANT = {
    0.02: {0.1: 1_546, 0.2: 3_092, 0.3: 4_637},
    0.03: {0.1: 687, 0.2: 1_374, 0.3: 2_061},
    0.05: {0.1: 248, 0.2: 495, 0.3: 742},
    0.10: {0.1: 62, 0.2: 124, 0.3: 186},
}
DEVIATIONS = {
    0.02: {0.15: 348, 0.25: 967, 0.35: 1_894},
    0.03: {0.15: 155, 0.25: 430, 0.35: 842},
    0.05: {0.15: 56, 0.25: 155, 0.35: 303},
}


@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_needed_cases_are_those_of_statsmodels(alpha: float) -> None:
    theirs = normal_sample_size_one_tail(0.03, 0.9, alpha, std_null=0.3)
    assert needed(distance=0.03, sd=0.3, alpha=alpha, power=0.9) == math.ceil(theirs)


def test_table_of_needed_cases() -> None:
    for margin, row in DISCORDANT.items():
        for share, cases in row.items():
            assert needed(distance=margin, sd=share**0.5) == cases
    for margin, row in DEVIATIONS.items():
        for sd, cases in row.items():
            assert needed(distance=margin, sd=sd) == cases


@pytest.mark.parametrize(("discordant", "cases"), [(0.1, 687), (0.2, 1_374)])
def test_as_many_cases_as_needed_have_the_power_stated(discordant: float, cases: int) -> None:
    rng, runs = np.random.default_rng(11), 2_000
    half = discordant / 2
    drawn = rng.multinomial(cases, [half, half, 1 - discordant], size=runs)
    passed = [MatchedPairs(int(b), int(c), cases).p_above(-0.03) <= 0.05 for b, c, _ in drawn]
    assert 0.78 <= np.mean(passed) <= 0.83


def test_a_safety_claim_of_one_in_a_hundred_takes_299_clean_cases() -> None:
    assert needed_without_fault(rate=0.01) == 299
    assert needed_without_fault(rate=1.0) == 1


def test_clusters_multiply_what_is_needed() -> None:
    assert design_effect([8] * 30, 0.7) == pytest.approx(5.9)
    assert design_effect([1] * 30, 0.7) == 1.0
    assert needed(distance=0.03, sd=0.25, design=5.9) == pytest.approx(5.9 * 430, rel=0.01)


def test_intraclass_correlation_is_found() -> None:
    rng = np.random.default_rng(12)
    ids = np.repeat(np.arange(2_000), 4)
    values = rng.normal(0, 0.3**0.5, size=2_000)[ids] + rng.normal(0, 0.7**0.5, size=ids.size)
    assert intraclass(values, ids) == pytest.approx(0.3, abs=0.03)
    assert intraclass(values, rng.permutation(ids)) == pytest.approx(0.0, abs=0.03)
    assert intraclass([1.0, 1.0, 1.0], [1, 1, 2]) == 0.0
    assert intraclass([1.0, 2.0, 3.0], [1, 2, 3]) == 0.0


@pytest.mark.parametrize(
    "wrong", [{"distance": 0.0}, {"alpha": 0.0}, {"power": 1.0}, {"design": 0}]
)
def test_what_cannot_be_planned_for_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidRequest, match=next(iter(wrong))):
        needed(**{"distance": 0.03, "sd": 0.2, **wrong})

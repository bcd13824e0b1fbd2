from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from evals.statistics.agreement import MIN_KAPPA, cohen, krippendorff
from evals.suite import Suite
from infra.errors import InvalidRequest

# Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), example C: four observers.
OBSERVERS = ["123321412...", "1233224125.3", ".3332342251.", "12332441251."]


@pytest.mark.parametrize("weights", ["none", "linear", "quadratic"])
def test_kappa_is_that_of_scikit_learn(weights: str) -> None:
    rng = np.random.default_rng(0)
    one = rng.integers(0, 4, size=200)
    other = np.where(rng.random(200) < 0.7, one, rng.integers(0, 4, size=200))
    theirs = cohen_kappa_score(one, other, weights=None if weights == "none" else weights)
    ours = cohen(one, other, weights=weights, draws=99)  # type: ignore[arg-type]
    assert ours.kappa.estimate == pytest.approx(theirs)


@pytest.mark.parametrize(
    ("runs", "slack"), [(200, 0.045), pytest.param(1_000, 0.02, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("n", [30, 100, 300])
@pytest.mark.parametrize("share", [0.8, 0.95])
def test_kappa_is_inside_its_bounds_as_often_as_they_say(
    n: int, share: float, runs: int, slack: float
) -> None:
    """Two fair raters who agree 8 times of 10: kappa is 0.6; 19 of 20: 0.9."""
    rng, inside = np.random.default_rng(n), 0
    for run in range(runs):
        one = rng.integers(0, 2, size=n)
        other = np.where(rng.random(n) < share, one, 1 - one)
        found = cohen(one, other, draws=499, seed=run).kappa
        inside += found.low <= 2 * share - 1 <= found.high
    assert abs(inside / runs - 0.95) <= slack


def test_kappa_on_a_scale_is_inside_its_bounds_and_seldom_below_the_lower() -> None:
    """A judge that is off by a level now and then; what is true follows from the table."""
    apart = np.arange(5)[None, :] - np.arange(5)[:, None]
    table = np.exp(-(apart**2) / 1.62)
    table *= np.array([0.1, 0.1, 0.15, 0.25, 0.4])[:, None] / table.sum(axis=1, keepdims=True)
    chance = table.sum(axis=1)[:, None] * table.sum(axis=0)
    true = 1 - (table * apart**2).sum() / (chance * apart**2).sum()
    rng, inside, above, runs = np.random.default_rng(0), 0, 0, 200
    for run in range(runs):
        drawn = rng.choice(25, size=100, p=table.ravel())
        found = cohen(
            drawn // 5, drawn % 5, weights="quadratic", scale=range(5), draws=499, seed=run
        ).kappa
        inside += found.low <= true <= found.high
        above += found.low > true
    assert 0.91 <= inside / runs <= 0.99
    assert above / runs <= 0.03


def test_bounds_of_kappa_are_around_it() -> None:
    truth = np.tile([0, 1], 15)
    wrong = truth.copy()
    wrong[:6] = 1 - wrong[:6]
    some = cohen(np.tile(truth, 4), np.tile(wrong, 4))
    assert some.kappa.estimate == pytest.approx(0.6)
    assert some.share == 0.8
    assert 0.4 < some.kappa.low < 0.6 < some.kappa.high < 0.8
    assert not some.lets_gate()  # it is 0.6, and may be less
    assert some.lets_gate(0.4)
    assert not cohen(truth[:5], truth[:5]).lets_gate(0.0)


def test_a_suite_asks_for_the_kappa_that_is_asked_for_elsewhere() -> None:
    assert Suite.model_fields["min_kappa"].default == MIN_KAPPA


def test_levels_that_nobody_gave_keep_their_place_on_the_scale() -> None:
    one, other = [1, 1, 5, 5, 2, 2], [1, 2, 5, 5, 2, 1]
    theirs = cohen_kappa_score(one, other, labels=[1, 2, 3, 4, 5], weights="quadratic")
    whole = cohen(one, other, weights="quadratic", scale=[1, 2, 3, 4, 5], draws=99)
    assert whole.kappa.estimate == pytest.approx(theirs)
    assert whole.kappa.estimate > cohen(one, other, weights="quadratic", draws=99).kappa.estimate
    with pytest.raises(InvalidRequest, match="5 is not on the scale"):
        cohen(one, other, scale=[1, 2, 3, 4])


def test_raters_without_two_labels_have_no_kappa() -> None:
    with pytest.raises(InvalidRequest, match="'yes' every time"):
        cohen(["yes"] * 5, ["yes"] * 5)
    with pytest.raises(InvalidRequest, match="same items"):
        cohen([1, 2], [1, 2, 3])


def test_alpha_is_the_published_one() -> None:
    units = [
        [None if label == "." else label for label in unit] for unit in zip(*OBSERVERS, strict=True)
    ]
    assert round(krippendorff(units), 3) == 0.743


def test_alpha_is_one_for_agreement_and_about_zero_for_chance() -> None:
    assert krippendorff([["a", "a"], ["b", "b", "b"]]) == 1.0
    rng = np.random.default_rng(1)
    assert krippendorff(rng.integers(0, 3, size=(2_000, 3)).tolist()) == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize("units", [[], [["a"], ["b"]], [["a", "a"], ["a", None]]])
def test_labels_that_nobody_doubles_have_no_alpha(units: list[list[str | None]]) -> None:
    with pytest.raises(InvalidRequest, match="not defined"):
        krippendorff(units)

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier

from evals.diagnosis import Diagnosis, Losses, Source, diagnose
from infra.errors import InvalidRequest

RATES = {"train": 0.02, "train_validation": 0.02, "validation": 0.02, "test": 0.02}
RAISED = {
    Source.AVOIDABLE_BIAS: ("train", "train_validation", "validation", "test"),
    Source.VARIANCE: ("train_validation", "validation", "test"),
    Source.SHIFT: ("validation", "test"),
    Source.VALIDATION_OVERFITTING: ("test",),
}


@pytest.mark.parametrize("source", RAISED)
def test_planted_source_is_found_and_no_other(source: Source) -> None:
    rates = {name: rate + 0.1 * (name in RAISED[source]) for name, rate in RATES.items()}
    found = _diagnosed(rates, cases=2_000, best=0.02)
    assert [part.source for part in found.findings if part.source in RAISED] == [source]
    assert found.findings[0].advice in found.summary


def test_parts_add_up_to_the_error() -> None:
    found = _diagnosed({**RATES, "validation": 0.3}, cases=137, best=0.01)
    assert sum(part.share.estimate for part in found.parts) == pytest.approx(found.error.estimate)
    assert [part.source for part in found.parts] == list(Source)


def test_nothing_is_advised_on_few_cases() -> None:
    found = _diagnosed({**RATES, "test": 0.1}, cases=15, best=0.02)
    assert Source.VALIDATION_OVERFITTING not in {part.source for part in found.findings}
    assert "more cases" in _diagnosed(dict.fromkeys(RATES, 0.001), cases=15).summary


# The slack is what chance takes from 95 %, by scipy: `binom.ppf(0.01, 150, 0.95)` is 136, and of
# 1,000 it is 933.
@pytest.mark.parametrize(
    ("runs", "slack"), [(150, 0.044), pytest.param(1_000, 0.017, marks=pytest.mark.slow)]
)
def test_intervals_of_all_parts_hold_together(runs: int, slack: float) -> None:
    truth = [0.02, 0.03, 0.05, 0.1, 0.05]
    rates = dict(zip(RATES, np.cumsum(truth)[1:], strict=True))
    inside = 0
    for seed in range(runs):
        parts = _diagnosed(rates, cases=400, best=0.02, seed=seed).parts
        inside += all(p.share.low <= t <= p.share.high for p, t in zip(parts, truth, strict=True))
    assert inside / runs >= 0.95 - slack


def test_what_the_best_gets_wrong_is_told_from_bias_only_if_it_is_known() -> None:
    rates = dict.fromkeys(RATES, 0.2)
    unknown, known = _diagnosed(rates), _diagnosed(rates, best=0.2)
    assert not unknown.knows_the_best
    assert unknown.findings[0].source is Source.AVOIDABLE_BIAS
    assert known.findings[0].source is Source.IRREDUCIBLE


def test_clusters_make_a_part_less_sure() -> None:
    sets = _losses({**RATES, "test": 0.06}, cases=500, seed=1)
    plain = diagnose(**sets)
    ten = {
        name: Losses(np.repeat(part.values, 10), np.repeat(np.arange(500), 10))
        for name, part in sets.items()
    }
    copies = {name: Losses(part.values) for name, part in ten.items()}
    widths = [
        found.parts[-1].share.high - found.parts[-1].share.low
        for found in (plain, diagnose(**ten), diagnose(**copies))
    ]
    assert widths[1] == pytest.approx(widths[0], rel=0.1)
    assert widths[2] < widths[0] / 2


def test_real_models_have_the_faults_they_were_given() -> None:
    """A tree without limit has variance, a linear model of a circle has bias."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4_000, 6))
    y = (np.hypot(x[:, 0], x[:, 1]) > 1.2) ^ (rng.random(4_000) < 0.05)
    moved = rng.normal(size=(2_000, 6)) * 1.0
    truth = (np.hypot(moved[:, 0], moved[:, 1]) > 1.2) ^ (rng.random(2_000) < 0.05)
    expected = {DecisionTreeClassifier: Source.VARIANCE, LogisticRegression: Source.AVOIDABLE_BIAS}
    for kind, source in expected.items():
        model = kind().fit(x[:2_000], y[:2_000])
        wrong = [
            Losses(model.predict(a) != b)
            for a, b in (
                (x[:2_000], y[:2_000]),
                (x[2_000:], y[2_000:]),
                (moved[:1_000], truth[:1_000]),
                (moved[1_000:], truth[1_000:]),
            )
        ]
        found = diagnose(**dict(zip(RATES, wrong, strict=True)), best=0.05)
        assert [part.source for part in found.findings if part.source in RAISED] == [source]


def test_losses_that_are_no_losses_are_refused_by_name() -> None:
    sets = _losses(RATES, cases=10, seed=0)
    with pytest.raises(InvalidRequest, match="'validation'.*two values"):
        diagnose(**{**sets, "validation": Losses([])})


def test_equal_losses_have_no_spread() -> None:
    found = diagnose(**{name: Losses([0.5] * 4) for name in RATES})
    assert found.parts[1].share.estimate == 0.5
    assert found.parts[4].share.estimate == 0.0


def _losses(rates: Mapping[str, float], cases: int, seed: int) -> dict[str, Losses]:
    rng = np.random.default_rng(seed)
    return {name: Losses((rng.random(cases) < rate).astype(float)) for name, rate in rates.items()}


def _diagnosed(
    rates: Mapping[str, float], cases: int = 1_000, best: float | None = None, seed: int = 0
) -> Diagnosis:
    return diagnose(**_losses(rates, cases, seed), best=best)

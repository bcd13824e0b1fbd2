from __future__ import annotations

import numpy as np
import pytest

from evals.statistics import prediction_powered
from evals.statistics.intervals import Floats
from infra.errors import InvalidRequest
from score_rows import t_interval


@pytest.mark.parametrize(
    ("runs", "slack"), [(200, 0.045), pytest.param(1_000, 0.02, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("n", [100, 300])
def test_truth_is_covered_although_the_judge_is_biased(n: int, runs: int, slack: float) -> None:
    rng, inside, judge_alone, shorter = np.random.default_rng(n), 0, 0, 0
    for _ in range(runs):
        labels, judged, unlabelled = _drawn(rng, n)
        found = prediction_powered.mean(labels=labels, judged=judged, unlabelled=unlabelled)
        plain, naive = t_interval(labels), t_interval(unlabelled)
        inside += found.low <= 0.6 <= found.high
        judge_alone += naive.low <= 0.6 <= naive.high
        shorter += found.high - found.low < plain.high - plain.low
    assert abs(inside / runs - 0.95) <= slack
    assert judge_alone / runs < 0.05
    assert shorter / runs > 0.95


def test_useless_judge_leaves_the_labels_alone() -> None:
    rng = np.random.default_rng(0)
    labels = rng.random(200)
    against = prediction_powered.mean(
        labels=labels, judged=1 - labels, unlabelled=rng.random(5_000)
    )
    constant = prediction_powered.mean(labels=labels, judged=[1.0] * 200, unlabelled=[1.0] * 9)
    assert against == constant
    assert constant.estimate == pytest.approx(labels.mean())
    assert constant.low == pytest.approx(t_interval(labels).low)


def test_labels_and_scores_of_other_cases_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="2 labels and 3 scores"):
        prediction_powered.mean(labels=[1, 0], judged=[1, 0, 1], unlabelled=[1, 0])


def _drawn(rng: np.random.Generator, n: int) -> tuple[Floats, Floats, Floats]:
    """The judge calls one in four bad answers good, and one in twenty good ones bad."""
    truth = rng.random(n + 3_000) < 0.6
    judged = np.where(truth, rng.random(truth.size) < 0.95, rng.random(truth.size) < 0.25)
    return truth[:n].astype(float), judged[:n].astype(float), judged[n:].astype(float)

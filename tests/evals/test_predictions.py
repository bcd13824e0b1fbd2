"""Metrics of classical models beside scikit-learn's, and on what a model should not return."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest
from sklearn import metrics as sklearn

from evals.context import Context
from evals.metric import Metric, SetMetric, open_metric
from evals.scores import Score
from evals.trial import Case, Output, Trial

LABELS = ("cat", "dog", "owl")


def one(name: str, expected: Any, prediction: Any, **parameters: Any) -> Score:
    metric = cast("Metric", open_metric(name, parameters))
    case = Case("1", {"x": 1}, expected)
    return asyncio.run(metric.score(case, Output(prediction=prediction), Context()))


def whole(name: str, trials: Sequence[Trial], **parameters: Any) -> Score:
    return cast("SetMetric", open_metric(name, parameters)).score_set(trials)


def trial(number: int, expected: Any, prediction: Any, **metadata: Any) -> Trial:
    case = Case(str(number), {"x": number}, expected, metadata=metadata)
    return Trial(case, 0, Output(prediction=prediction))


@pytest.fixture
def classified() -> list[Trial]:
    rng = np.random.default_rng(5)
    shares = rng.dirichlet([1.0, 1.0, 1.0], size=200)
    drawn = [LABELS[int(rng.choice(3, p=row))] for row in shares]
    rows = [dict(zip(LABELS, map(float, row), strict=True)) for row in shares]
    return [trial(n, drawn[n], rows[n]) for n in range(200)]


def columns(trials: Sequence[Trial]) -> tuple[list[str], np.ndarray[Any, Any]]:
    wanted = [each.case.expected for each in trials]
    outputs = [cast("Output", each.output).prediction for each in trials]
    return wanted, np.array([[row[label] for label in LABELS] for row in outputs])


def mean(name: str, trials: Sequence[Trial], **parameters: Any) -> float:
    values = [
        one(name, each.case.expected, cast("Output", each.output).prediction, **parameters).value
        for each in trials
    ]
    return float(np.mean(cast("list[float]", values)))


def test_means_over_cases_are_scikit_learns(classified: list[Trial]) -> None:
    wanted, shares = columns(classified)
    assert mean("log_loss", classified) == pytest.approx(sklearn.log_loss(wanted, shares))
    given = [LABELS[place] for place in shares.argmax(axis=1)]
    assert mean("accuracy", classified) == pytest.approx(sklearn.accuracy_score(wanted, given))
    brier = sklearn.brier_score_loss(wanted, shares, labels=LABELS, scale_by_half=True)
    assert mean("brier", classified) == pytest.approx(brier)


def test_areas_are_scikit_learns(classified: list[Trial]) -> None:
    wanted, shares = columns(classified)
    ours = whole("auroc", classified).value
    assert ours == pytest.approx(sklearn.roc_auc_score(wanted, shares, multi_class="ovr"))
    dogs = whole("auroc", classified, positive="dog").value
    area = sklearn.roc_auc_score([each == "dog" for each in wanted], shares[:, 1])
    assert dogs == pytest.approx(area)
    assert whole("auroc", classified, positive="fox").state == "unscored"


def test_regression_is_scikit_learns() -> None:
    rng = np.random.default_rng(1)
    wanted, given = rng.normal(size=50), rng.normal(size=50)
    # As text, which is how CSV without a schema has numbers.
    trials = [trial(n, str(wanted[n]), float(given[n])) for n in range(50)]
    assert mean("mae", trials) == pytest.approx(sklearn.mean_absolute_error(wanted, given))
    root = sklearn.root_mean_squared_error(wanted, given)
    assert whole("rmse", trials).value == pytest.approx(root)
    assert whole("r2", trials).value == pytest.approx(sklearn.r2_score(wanted, given))
    assert whole("r2", [trial(1, 2.0, 2.0), trial(2, 2.0, 3.0)]).state == "unscored"


def test_calibration_error_is_the_gap_worked_out_by_hand() -> None:
    sure = {"yes": 0.9, "no": 0.1}
    four_of_five = [trial(n, "no" if n == 0 else "yes", sure) for n in range(5)]
    assert whole("calibration_error", four_of_five).value == pytest.approx(0.1)
    unsure = {"yes": 0.55, "no": 0.45}
    both = [*four_of_five, *(trial(n, "yes", unsure) for n in range(5, 10))]
    assert whole("calibration_error", both).value == pytest.approx(0.5 * 0.1 + 0.5 * 0.45)


def test_calibrated_model_has_a_smaller_error_than_one_too_sure(classified: list[Trial]) -> None:
    squared = [
        trial(n, each.case.expected, sharpened(cast("Output", each.output).prediction))
        for n, each in enumerate(classified)
    ]
    honest, boastful = (whole("calibration_error", each).value for each in (classified, squared))
    assert honest is not None
    assert boastful is not None
    assert honest < 0.1 < boastful


def sharpened(shares: dict[str, float]) -> dict[str, float]:
    powers = {name: value**4 for name, value in shares.items()}
    return {name: value / sum(powers.values()) for name, value in powers.items()}


@pytest.mark.parametrize(
    "wrong",
    [math.nan, math.inf, "many", True, [1], {"a": math.nan}, {"a": 0.2}, {"a": 1.5, "b": -0.5}],
)
@pytest.mark.parametrize("name", ["mae", "log_loss", "brier"])
def test_prediction_of_the_wrong_kind_is_an_error_and_no_number(name: str, wrong: Any) -> None:
    found = one(name, 1.0, wrong)
    assert found.state == "error"
    assert found.reason


@pytest.mark.parametrize("name", ["rmse", "r2", "auroc", "calibration_error"])
def test_one_prediction_of_the_wrong_kind_costs_the_set_its_score(name: str) -> None:
    found = whole(name, [trial(1, 1.0, 2.0), trial(2, 3.0, math.nan)])
    assert found.state == "error"
    assert found.value is None


def test_label_that_got_no_probability_costs_much_and_not_everything() -> None:
    found = one("log_loss", "owl", {"cat": 1.0})
    assert found.value == pytest.approx(-math.log(1e-15))
    assert one("brier", "owl", {"cat": 1.0}).value == 1


def grouped(rows: Sequence[tuple[str, str, str]]) -> list[Trial]:
    return [trial(n, *row[:2], group=row[2]) for n, row in enumerate(rows)]


def test_fairness_is_the_difference_between_groups() -> None:
    unfair = grouped(
        [
            *(("yes", "yes", "a"),) * 3, ("no", "yes", "a"), ("no", "no", "a"),
            *(("yes", "no", "b"),) * 2, ("yes", "yes", "b"), ("no", "no", "b"), ("no", "no", "b"),
        ]
    )  # fmt: skip
    assert whole("demographic_parity", unfair).value == pytest.approx(4 / 5 - 1 / 5)
    assert whole("equalised_odds", unfair).value == pytest.approx(1 - 1 / 3)
    # Which of two labels is meant makes no difference.
    assert whole("equalised_odds", unfair, positive="no").value == pytest.approx(1 - 1 / 3)


@pytest.mark.parametrize("name", ["demographic_parity", "equalised_odds"])
def test_fairness_without_groups_to_compare_is_no_zero(name: str) -> None:
    rows = [("yes", "yes", "a"), ("no", "no", "a")]
    assert whole(name, grouped(rows)).state == "unscored"
    assert whole(name, grouped(rows), column="sex").state == "error"
    three = grouped([*rows, ("maybe", "no", "b"), ("no", "maybe", "b")])
    found = whole(name, three)
    assert found.state == "error"
    assert "positive" in found.reason


def test_odds_of_a_group_that_only_has_one_outcome_are_not_made_up() -> None:
    rows = [("yes", "yes", "a"), ("no", "no", "a"), ("yes", "yes", "b"), ("yes", "yes", "b")]
    assert whole("equalised_odds", grouped(rows)).state == "unscored"

"""How rows of a classical model are divided, drawn and decided on: laws, with exact numbers."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import TimeSeriesSplit

import loans
from infra.classical import decide
from infra.classical import parse as parse_model
from infra.errors import InvalidRequest, TooLarge
from training.classical import parse
from training.tabular import (
    columns,
    deciding,
    fitting,
    pipelines,
    proposing,
    sampling,
    splitting,
)
from training.tabular.preparation import prepare
from training.tabular.specification import Classical, Sampling, Threshold
from training.tabular.table import Table, names_of


def spec(**changes: Any) -> Classical:
    return parse(loans.asked(**changes))


def table(truth: Any, **more: Any) -> Table:
    return Table(pl.DataFrame({"x": truth}), truth, None, **more)


def test_by_time_the_latest_are_held_out_and_no_time_is_on_both_sides() -> None:
    rows = loans.table().sample(fraction=1, shuffle=True, seed=5)
    asked = spec(data__time="month", split__gap=7)
    split = splitting.hold_out(rows, asked)
    learned, held = rows["month"].gather(split.train), rows["month"].gather(split.test)
    assert learned.max() < held.min()
    assert learned.is_sorted()
    assert (len(split.train), len(split.test)) == (480 - 7, 120)
    times = learned.to_numpy()
    folds = splitting.folds(table(np.zeros(len(times)), times=times), asked)
    assert len(folds) == 3
    for earlier, later in folds:
        assert earlier.max() + 7 < later.min()


@given(st.lists(st.integers(1, 9), min_size=12, max_size=30), st.integers(2, 4))
@settings(max_examples=25)
def test_folds_by_time_cut_no_time_in_two(runs: list[int], count: int) -> None:
    times = np.repeat(np.arange(len(runs)), runs)
    try:
        found = splitting.folds(table(times, times=times), spec(data__time="month"), count=count)
    except InvalidRequest:
        assert max(runs) > len(times) // (count + 1)  # one time may be longer than a fold
        return
    assert len(found) == count
    assert found[-1][1][-1] == len(times) - 1
    for (earlier, later), (following, _) in itertools.pairwise(
        [*found, (np.arange(len(times)), 0)]
    ):
        assert times[earlier].max() < times[later].min()
        assert [*earlier, *later] == following.tolist()


def test_folds_by_time_are_of_equal_size_where_no_two_rows_share_one() -> None:
    times = np.arange(23)
    found = splitting.folds(table(times, times=times), spec(data__time="month"), count=3)
    wanted = TimeSeriesSplit(3).split(times)
    assert [[*map(list, each)] for each in found] == [[*map(list, each)] for each in wanted]


@pytest.mark.parametrize("changes", [{"data__time": "month"}, {"data__group": "customer"}])
def test_more_folds_than_times_or_groups_are_refused(changes: dict[str, str]) -> None:
    same = np.zeros(30, dtype=int)
    with pytest.raises(InvalidRequest, match="fold"):
        splitting.folds(table(same, groups=same, times=same), spec(**changes))


@pytest.mark.parametrize(
    ("changes", "pairs"), [({"data__time": "month"}, 1), ({"data__group": "customer"}, 3)]
)
def test_calibration_divides_rows_as_the_folds_do(changes: dict[str, str], pairs: int) -> None:
    asked = spec(**changes, imbalance={"calibration": "sigmoid"})
    material = prepare(asked, loans.table(), None)
    seen: list[Any] = []

    class Noting(LogisticRegression):  # type: ignore[misc]
        def fit(self, features: Any, labels: Any, **given: Any) -> Any:
            seen.append(len(labels))
            return super().fit(features, labels, **given)

    pipeline = pipelines.build(asked, material.chosen.columns, "logistic_regression", {})
    model = pipeline.named_steps["model"].set_params(estimator=Noting(max_iter=500))
    fitting.fit(pipeline, material.train, asked)
    assert len(model.calibrated_classifiers_) == pairs
    cut = splitting.folds(material.train, asked, count=3)[-pairs:]
    assert seen == [len(train) for train, _ in cut]
    assert model.cv == pipelines.CALIBRATION_FOLDS


def test_no_group_is_on_both_sides() -> None:
    rows = loans.table()
    asked = spec(data__group="customer")
    split = splitting.hold_out(rows, asked)
    groups = rows["customer"].to_numpy()
    assert not set(groups[split.train]) & set(groups[split.test])
    assert sorted([*split.train, *split.test]) == list(range(600))
    codes = (rows["outcome"] == "failed").to_numpy().astype(int)
    for one, other in splitting.folds(table(codes, groups=groups), asked):
        assert not set(groups[one]) & set(groups[other])


@given(st.lists(st.sampled_from("aab"), min_size=60, max_size=200), st.integers(0, 9))
@settings(max_examples=25)
def test_each_class_is_held_out_in_its_share(labels: list[str], seed: int) -> None:
    rows = pl.DataFrame({"outcome": labels})
    split = splitting.hold_out(rows, spec(seed=seed))
    assert sorted([*split.train, *split.test]) == list(range(len(labels)))
    for label in set(labels):
        held = sum(labels[place] == label for place in split.test)
        assert held == round(labels.count(label) * 0.2)


def test_too_few_rows_and_missing_times_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="of 20 rows would be left to measure on"):
        splitting.hold_out(loans.table(20), spec())
    rows = loans.table().with_columns(
        month=pl.when(pl.col("month") == 3).then(None).otherwise(pl.col("month"))
    )
    with pytest.raises(InvalidRequest, match="10 rows have no 'month'"):
        splitting.hold_out(rows, spec(data__time="month"))


def draw(plan: dict[str, Any], rows: pl.DataFrame) -> pl.DataFrame:
    places = np.arange(len(rows), dtype=np.intp)
    return rows[sampling.draw(rows, places, Sampling.model_validate(plan), seed=1)]


def test_a_quota_takes_as_many_of_each_as_it_says() -> None:
    plan = {"plan": "quota", "by": "rating", "quotas": {"1": 40, "3": 10}}
    found = draw(plan, loans.table())
    assert dict(found["rating"].value_counts().iter_rows()) == {1: 40, 3: 10}
    with pytest.raises(InvalidRequest, match="900 rows with 'rating' '2' are wanted"):
        draw({**plan, "quotas": {"2": 900}}, loans.table())


def test_a_stratified_sample_keeps_the_shares() -> None:
    rows = pl.DataFrame({"kind": ["a"] * 70 + ["b"] * 25 + [None] * 5})
    found = draw({"plan": "stratified", "by": "kind", "rows": 20}, rows)
    assert dict(found["kind"].value_counts().iter_rows()) == {"a": 14, "b": 5, None: 1}
    with pytest.raises(InvalidRequest, match="101 are wanted, and 100"):
        draw({"plan": "stratified", "by": "kind", "rows": 101}, rows)


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("nan"), float("inf")])
def test_a_weight_that_is_none_is_refused_by_its_row(wrong: float) -> None:
    rows = pl.DataFrame({"weight": [1.0, 2.0, wrong]})
    with pytest.raises(InvalidRequest, match="in row 2"):
        sampling.weights(rows, Sampling(plan="weighted", weight="weight"))


@given(st.lists(st.integers(0, 2), min_size=3, max_size=60))
def test_classes_are_evened_out(given_codes: list[int]) -> None:
    codes = np.array([0, 1, 2, *given_codes])
    counts = np.bincount(codes)
    over = sampling.even_out(codes, "over", seed=0)
    assert set(np.bincount(codes[over])) == {counts.max()}
    assert set(over) == set(range(len(codes)))
    under = sampling.even_out(codes, "under", seed=0)
    assert set(np.bincount(codes[under])) == {counts.min()}
    assert len(set(under)) == len(under)


@given(
    st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=2, max_size=30),
    st.sampled_from(["f1", "balanced_accuracy", "cost"]),
)
def test_no_other_threshold_is_better(rows: list[tuple[int, bool]], metric: Any) -> None:
    rows = [*rows, (3, True), (17, False)]
    chances = np.array([each / 20 for each, _ in rows])
    truth = np.array([int(each) for _, each in rows])
    said = np.stack([1 - chances, chances], axis=1)
    asked = Threshold(positive="yes", metric=metric, false_negative_cost=3)
    found = deciding.choose(truth, said, ("no", "yes"), asked)
    sign = -1 if metric == "cost" else 1
    best = max(
        sign * _value(metric, truth, chances >= cut)
        for cut in [1e-6, *(each / 40 for each in range(1, 40)), 1 - 1e-6]
    )
    assert sign * found.value == pytest.approx(best)
    chosen = chances >= found.thresholds["yes"]
    assert _value(metric, truth, chosen) == pytest.approx(found.value)
    model = parse_model(
        {
            "format": "onnx", "file": "m", "task": "classification", "target": "t",
            "inputs": [{"name": "x", "type": "float64"}], "classes": ["no", "yes"],
            "thresholds": found.thresholds,
        }
    )  # fmt: skip
    assert (decide(said, model) == chosen).all()


def _value(metric: str, truth: Any, chosen: Any) -> float:
    hits, alarms = int((truth * chosen).sum()), int(((1 - truth) * chosen).sum())
    missed = int(truth.sum()) - hits
    if metric == "f1":
        return 2 * hits / (2 * hits + alarms + missed) if hits else 0.0
    if metric == "cost":
        return (alarms + 3 * missed) / len(truth)
    quiet = int((1 - truth).sum()) - alarms
    return (hits / (hits + missed) + quiet / (quiet + alarms)) / 2


def planned(some: Classical) -> list[tuple[str, dict[str, Any]]]:
    return [(each.estimator, each.ask()) for each in proposing.plan(some)]


def test_a_grid_takes_each_point_and_random_draws_stay_in_range() -> None:
    tree = {
        "estimator": "decision_tree",
        "fixed": {"criterion": "gini"},
        "parameters": {
            "max_depth": [2, 3],
            "min_samples_leaf": {"low": 1, "high": 9, "step": 4, "whole": True},
        },
    }
    points = planned(spec(candidates=[tree]))
    assert points[0] == ("logistic_regression", {})
    assert [point["min_samples_leaf"] for _, point in points[1:]] == [1, 5, 9, 1, 5, 9]
    assert {point["criterion"] for _, point in points[1:]} == {"gini"}
    logs = {"parameters": {"C": {"low": 1e-4, "high": 1e2, "log": True}}}
    some = spec(
        candidates=[{"estimator": "logistic_regression", **logs}],
        search={"sampler": "random", "trials": 50},
    )
    drawn = [point["C"] for _, point in planned(some)[1:]]
    assert len(set(drawn)) == 50
    assert 1e-4 <= min(drawn) < 1e-2 < 1 < max(drawn) <= 1e2
    assert drawn == [point["C"] for _, point in planned(some)[1:]]


def test_tpe_draws_by_the_scores_so_far_and_the_same_again() -> None:
    logs = {
        "fixed": {"max_iter": 50},
        "parameters": {
            "C": {"low": 1e-4, "high": 1e4, "log": True},
            "fit_intercept": [True, 1],
            "l1_ratio": {"low": 0.0, "high": 1.0, "step": 0.25},
            "n_jobs": {"low": 1, "high": 3, "whole": True},
        },
    }
    some = spec(
        candidates=[{"estimator": "logistic_regression", **logs}],
        search={"sampler": "tpe", "trials": 40},
    )

    def found() -> list[dict[str, Any]]:
        points = []
        for proposal in proposing.plan(some)[1:]:
            points.append(proposal.ask())
            far = abs(np.log10(points[-1]["C"]) - 2)
            proposal.tell(float("nan") if len(points) == 3 else far)
        return points

    points = found()
    assert points == found()
    assert len(points) == 40
    assert {each["max_iter"] for each in points} == {50}
    assert {each["l1_ratio"] for each in points} <= {0.0, 0.25, 0.5, 0.75, 1.0}
    assert {each["n_jobs"] for each in points} <= {1, 2, 3}
    assert {repr(each["fit_intercept"]) for each in points} == {"True", "1"}
    early, late = (
        [abs(np.log10(each["C"]) - 2) for each in part] for part in (points[:10], points[-10:])
    )
    assert np.mean(late) < np.mean(early) / 2


def test_a_grid_that_is_too_large_is_refused() -> None:
    wide = {"estimator": "decision_tree", "parameters": {"max_depth": list(range(1, 32))}}
    with pytest.raises(InvalidRequest, match="31 points, and search.trials is 20"):
        proposing.plan(spec(candidates=[wide]))
    huge = {"estimator": "decision_tree", "parameters": {"max_depth": list(range(1, 20_000))}}
    with pytest.raises(TooLarge, match="19,999 points"):
        proposing.plan(spec(candidates=[huge]))


def test_ranges_and_categories_are_learned_from_rows_that_are_trained_on() -> None:
    train = pl.DataFrame({"a": [1.0, 2.0], "b": ["x", "y"], "c": [1, 1], "y": ["p", "q"]})
    whole = pl.DataFrame(
        {"a": [1.0, 2.0, 9.0, None], "b": ["x", "y", "z", ""], "c": [1] * 4, "y": ["p", "q"] * 2}
    )
    asked = spec(data={"train": {"rows": "x.csv"}, "target": "y"}, features={})
    found = columns.choose(train, whole, asked)
    assert found.left_out == {"c": "is always 1"}
    number, word = found.columns
    assert (number.low, number.high, number.nullable) == (1.0, 2.0, True)
    assert (word.categories, word.nullable) == (("x", "y"), True)


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        ([3, 1, 1, 3], (1, 3)),
        ([True, False, True, False], (False, True)),
        ([1.0, 0.0, 1.0, 0.0], (0, 1)),
        ([10, 9, 10, 9], (9, 10)),
        ([2.5, 10.0, 1.0, 2.5, 10.0, 1.0], (1, 10, 2.5)),
        (["b", "a", "b", "a"], ("a", "b")),
    ],
)
def test_classes_are_sorted_as_estimators_sort_them(values: list[Any], classes: Any) -> None:
    labels = columns.labels(pl.Series("y", values))
    found = columns.classes_of(labels, target="y", fewest=2)
    assert found == classes
    assert names_of(found).tolist() == sorted(names_of(found))


def test_a_class_with_fewer_rows_than_folds_is_named() -> None:
    with pytest.raises(InvalidRequest, match="The class 'rare' of 'y' has 1 row"):
        columns.classes_of(["rare", "a", "a", "b", "b"], target="y", fewest=2)
    with pytest.raises(InvalidRequest, match="1 different value"):
        columns.classes_of(["a"] * 9, target="y", fewest=2)

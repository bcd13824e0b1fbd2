"""How well a model does, by its confidence or by few labels: bounds that hold, or a refusal."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from evals.statistics.prediction_powered import mean as powered
from infra.errors import InvalidRequest, NotFound
from monitoring.estimates import (
    Labelled,
    Unlabelled,
    below_floor,
    mean_of_column,
    with_labels,
    without_labels,
)
from monitoring.windows import Window


def mean(labels: Any, judged: Any, unlabelled: Any) -> Any:
    return powered(labels=labels, judged=judged, unlabelled=unlabelled)


def predictions(rows: int, seed: int, *, has_labels: bool = True) -> Window:
    rng = np.random.default_rng(seed)
    chance = rng.uniform(size=rows)
    columns: dict[str, Any] = {"probability.leaves": chance, "feature.age": rng.normal(size=rows)}
    if has_labels:
        columns["label"] = np.where(rng.random(rows) < chance, "leaves", "stays").astype(object)
    return Window.of(columns)


LEAVES = Unlabelled("f1", "f1", {"leaves": "probability.leaves"}, "label", floor=0.5)


def test_a_metric_without_labels_has_bounds_and_its_floor() -> None:
    window = predictions(500, 1, has_labels=False)
    told = without_labels(LEAVES, predictions(1_000, 0), window)
    assert told["method"] == "confidence"
    assert told["low"] < told["estimate"] < told["high"]
    assert told["estimate"] == pytest.approx(0.75, abs=0.06)
    assert not below_floor(told)
    assert below_floor({**told, "floor": 0.95})


def test_rows_without_a_probability_or_a_label_do_not_count() -> None:
    reference = predictions(1_000, 0)
    labels = list(reference.read("label"))
    labels[:950] = [None] * 950
    few = Window.of({**{n: reference.read(n) for n in reference.names}, "label": labels})
    told = without_labels(LEAVES, few, predictions(500, 1))
    assert told["estimate"] is None
    assert "500 rows and 50 of the reference" in told["refused"]


def test_with_features_a_window_outside_of_the_reference_is_refused() -> None:
    wanted = Unlabelled(
        "f1", "f1", {"leaves": "probability.leaves"}, "label", features=["feature.age"]
    )
    window = predictions(500, 1)
    far = Window.of(
        {"probability.leaves": window.read("probability.leaves"), "feature.age": np.full(500, 9.0)}
    )
    reference = predictions(1_000, 0)
    told = without_labels(wanted, reference, far)
    assert told["method"] == "confidence, weighted by density"
    assert "outside the support" in told["refused"]


def test_several_classes_are_named_with_their_columns() -> None:
    rng = np.random.default_rng(0)

    def window(rows: int) -> Window:
        chances = rng.dirichlet([0.5, 0.5, 0.5], size=rows)
        labels = [str(rng.choice(["a", "b", "c"], p=row)) for row in chances]
        return Window.of(
            {"pa": chances[:, 0], "pb": chances[:, 1], "pc": chances[:, 2], "label": labels}
        )

    wanted = Unlabelled("macro", "macro_f1", {"a": "pa", "b": "pb", "c": "pc"}, "label")
    told = without_labels(wanted, window(800), window(300))
    assert 0.5 < told["low"] < told["high"] < 0.9


def test_a_column_that_is_not_there_or_of_another_kind_is_said_by_name() -> None:
    window = predictions(200, 1)
    with pytest.raises(NotFound, match="label"):
        without_labels(LEAVES, predictions(200, 0, has_labels=False), window)
    wrong = Unlabelled("f1", "f1", {"leaves": "label"}, "label")
    with pytest.raises(InvalidRequest, match="numbers are needed"):
        without_labels(wrong, window, window)
    with pytest.raises(InvalidRequest, match="accuracy, precision"):
        without_labels(Unlabelled("x", "macro_f1", {"a": "label"}, "label"), window, window)


def answers(seed: int, *, labelled: float = 0.1, right: float = 0.8) -> tuple[Window, float]:
    """A week of answers, some of which somebody looked at; returns what labels of all would say."""
    rng = np.random.default_rng(seed)
    rows = 1_000
    truth = rng.random(rows) < right
    score = np.clip(rng.normal(np.where(truth, 0.8, 0.3), 0.15), 0, 1)
    review = np.where(score < 0.3, "unsupported", "").astype(object)
    chance = np.where(review == "unsupported", 0.6, labelled)
    seen = rng.random(rows) < chance
    said = [
        ("up" if good else "down") if was else None for good, was in zip(truth, seen, strict=True)
    ]
    reviewed = [each or None for each in review]
    window = Window.of({"thumbs": said, "groundedness": score, "review": reviewed})
    return window, float(truth.mean())


RIGHT = Labelled("right", "thumbs", ["up"], judged="groundedness", apart={"review": "unsupported"})


def test_bounds_from_few_labels_enclose_the_truth_and_are_narrower_than_labels_alone() -> None:
    inside, narrow, wide = 0, [], []
    alone = Labelled("right", "thumbs", ["up"], apart={"review": "unsupported"})
    for seed in range(40):
        window, truth = answers(seed)
        told = with_labels(RIGHT, window, mean)
        inside += told["low"] <= truth <= told["high"]
        narrow.append(told["high"] - told["low"])
        other = with_labels(alone, window, mean)
        wide.append(other["high"] - other["low"])
    assert inside >= 34  # of 40 at 95 %; fewer has a probability of 1 in 700
    assert np.mean(narrow) < 0.85 * np.mean(wide)


def test_rows_that_are_labelled_more_often_would_mislead_if_they_were_not_set_apart() -> None:
    together = Labelled("right", "thumbs", ["up"])
    errors = []
    for seed in range(10):
        window, truth = answers(seed)
        errors.append(with_labels(together, window, mean)["estimate"] - truth)
    assert np.mean(errors) < -0.15


def test_too_few_labels_give_no_estimate() -> None:
    window, _ = answers(0, labelled=0.0)
    told = with_labels(RIGHT, window, mean)
    assert told["estimate"] is None
    assert "nothing sets them apart" in told["refused"]
    nobody = Window.of({"thumbs": [None] * 90, "groundedness": np.ones(90)})
    assert "0 labels of the 50" in with_labels(RIGHT, nobody, mean)["refused"]


def test_a_label_is_held_against_the_prediction_where_nothing_else_is_said() -> None:
    rng = np.random.default_rng(3)
    said = rng.choice([1, 0], size=300)
    labels = [str(each) if number < 100 else None for number, each in enumerate(said)]
    guessed = np.where(np.arange(300) % 5 == 0, 1 - said, said)
    window = Window.of({"label": labels, "prediction": guessed})
    told = with_labels(Labelled("accuracy", "label"), window, mean)
    assert told["estimate"] == pytest.approx(0.8)
    assert told["rows"] == 100


def test_the_mean_of_a_column_has_bounds_or_a_reason() -> None:
    window = Window.of({"support": np.full(100, 0.5) + np.arange(100) / 1000, "model": ["m"] * 100})
    told = mean_of_column("support", 0.7, window)
    assert told["low"] < told["estimate"] < told["high"] < 0.7
    assert below_floor(told)
    assert "not two numbers" in mean_of_column("model", 0.7, window)["refused"]
    assert mean_of_column("absent", 0.7, window)["refused"] == "the window has no column 'absent'"
    few = Window.of({"support": np.full(5, 0.6)})
    assert "all 5 values are equal" in mean_of_column("support", 0.7, few)["refused"]
    two = mean_of_column("support", 0.7, Window.of({"support": np.array([0.5, 0.6])}))
    assert two["high"] > 1, "two values say next to nothing"


def test_labels_of_every_row_that_all_agree_have_bounds_too() -> None:
    for labels, estimate in (([1.0] * 60, 1.0), ([0.0] * 60, 0.0), ([1.0] * 45 + [0.0] * 15, 0.75)):
        window = Window.of({"label": np.array(labels), "prediction": np.ones(60)})
        told = with_labels(Labelled("accuracy", "label", floor=0.8), window, mean)
        assert told["estimate"] == estimate
        assert 0.05 < told["high"] - told["low"] < 0.3
        assert below_floor(told) == (estimate == 0)


def test_features_that_cannot_be_compared_are_refused_by_name() -> None:
    wanted = replace(LEAVES, features=["feature.age"])
    window = predictions(500, 1)
    texts = Window.of(
        {
            "probability.leaves": window.read("probability.leaves"),
            "feature.age": np.array(["old", "young"] * 250, dtype=object),
        }
    )
    with pytest.raises(InvalidRequest, match=r"feature\.age is one kind"):
        without_labels(wanted, predictions(500, 0), texts)

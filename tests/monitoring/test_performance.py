from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import binom
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, roc_auc_score

from infra.errors import InvalidRequest
from monitoring.performance import (
    METRICS,
    Predictions,
    Reference,
    estimate,
    metric_of,
    weighted,
)


def realised(metric: Any, labels: Any, scores: Any, threshold: float = 0.5) -> float | None:
    """What labels say; None where that has no value."""
    value = float(metric_of(metric, scores, threshold)(labels[None, :])[0])
    return None if np.isnan(value) else value


def truth(features: Any) -> Any:
    """Return the probability of a positive: not linear, so that a linear model is miscalibrated."""
    return 1 / (1 + np.exp(-(1.5 * features[:, 0] - features[:, 1] ** 2 + 0.5)))


class World:
    """A classifier trained once, and windows of the same world, shifted or not."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        features, labels = self.draw(rng, 4_000)
        self.model = LogisticRegression().fit(features, labels)
        self.reference = self.seen(*self.draw(rng, 4_000))

    @staticmethod
    def draw(rng: np.random.Generator, rows: int, shift: float = 0.0) -> tuple[Any, Any]:
        features = rng.normal(size=(rows, 2))
        features[:, 1] += shift
        return features, rng.random(rows) < truth(features)

    def predictions(self, features: Any) -> Predictions:
        return Predictions(self.model.predict_proba(features)[:, 1], features)

    def seen(self, features: Any, labels: Any) -> Reference:
        return Reference(self.predictions(features), labels)


@pytest.fixture(scope="module")
def world() -> World:
    return World()


# Bounds of 95 % that hold enclose fewer than `binom.ppf(0.001, windows, 0.95)` once in a thousand
# times: 365 of 400. The reference is drawn anew for each window: what one of them has by chance,
# all windows beside it would share. A small one is where a calibration errs most.
@pytest.mark.thorough
@pytest.mark.parametrize(
    ("known", "windows"),
    [
        (2_000, 12),
        pytest.param(2_000, 400, marks=pytest.mark.slow),
        pytest.param(300, 200, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("metric", METRICS)
def test_bounds_enclose_what_labels_say_where_nothing_moved(
    world: World, metric: Any, known: int, windows: int
) -> None:
    inside = 0
    for seed in range(windows):
        rng = np.random.default_rng(9_000 + seed)
        reference = world.seen(*world.draw(rng, known))
        features, labels = world.draw(rng, 500)
        window = world.predictions(features)
        found = estimate(metric, reference, window, seed=seed)
        real = realised(metric, labels, window.probabilities)
        assert found.low is not None
        assert found.high is not None
        assert real is not None
        assert not found.refused
        inside += found.low <= real <= found.high
    assert inside >= binom.ppf(0.001, windows, 0.95), inside


# The shift of each window is drawn too, from none to one deviation of the feature that bends.
@pytest.mark.parametrize(
    ("windows", "metrics"),
    [(8, METRICS[:1]), pytest.param(200, METRICS, marks=pytest.mark.slow)],
)
def test_weighted_bounds_enclose_what_labels_say_where_features_moved(
    world: World, windows: int, metrics: Any
) -> None:
    inside = dict.fromkeys(metrics, 0)
    for seed in range(windows):
        rng = np.random.default_rng(70_000 + seed)
        shift = rng.uniform(-1, 1)
        reference = world.seen(*world.draw(rng, 2_000))
        features, labels = world.draw(rng, 500, shift=shift)
        window = world.predictions(features)
        for metric in metrics:
            found = weighted(metric, reference, window, seed=seed)
            real = realised(metric, labels, window.probabilities)
            assert found.low is not None, found.refused
            assert found.high is not None
            assert real is not None
            inside[metric] += found.low <= real <= found.high
    assert min(inside.values()) >= binom.ppf(0.001, windows, 0.95), inside


def test_bounds_take_off_what_few_labelled_rows_make_a_calibration_too_sure_of(
    world: World,
) -> None:
    taken_off = []
    for seed in range(6):
        rng = np.random.default_rng(9_000 + seed)
        reference = world.seen(*world.draw(rng, 150))
        features, _ = world.draw(rng, 500)
        found = estimate("auroc", reference, world.predictions(features), seed=seed)
        assert found.estimate is not None
        assert found.low is not None
        assert found.high is not None
        assert found.low <= found.estimate <= found.high
        taken_off.append(found.estimate - (found.low + found.high) / 2)
    assert np.mean(taken_off) > 0.02  # the draws of plain resampling lie about the estimate: 0.003


def test_realised_metrics_are_those_of_scikit_learn(world: World) -> None:
    features, labels = world.draw(np.random.default_rng(1), 400)
    scores = world.predictions(features).probabilities
    assert realised("f1", labels, scores) == pytest.approx(f1_score(labels, scores >= 0.5))
    assert realised("auroc", labels, scores) == pytest.approx(roc_auc_score(labels, scores))
    assert realised("precision", labels, scores * 0.4) is None
    assert realised("f1", labels, scores, 0.8) == pytest.approx(f1_score(labels, scores >= 0.8))


def test_weights_correct_what_plain_confidence_gets_wrong_when_features_move(world: World) -> None:
    plain_errors, weighted_errors = [], []
    for seed in range(6):
        features, labels = world.draw(np.random.default_rng(200 + seed), 2_000, shift=0.8)
        window = world.predictions(features)
        real = realised("accuracy", labels, window.probabilities)
        plain = estimate("accuracy", world.reference, window, seed=seed).estimate
        better = weighted("accuracy", world.reference, window, seed=seed)
        assert not better.refused, better.refused
        assert better.effective_rows is not None
        assert better.effective_rows < 4_000
        assert real is not None
        assert plain is not None
        assert better.estimate is not None
        plain_errors.append(plain - real)
        weighted_errors.append(better.estimate - real)
    assert np.mean(plain_errors) > 0.03  # it believes in what it does not see
    assert abs(np.mean(weighted_errors)) < 0.65 * abs(np.mean(plain_errors))


def test_a_window_that_the_reference_has_not_seen_is_refused(world: World) -> None:
    rng = np.random.default_rng(2)
    features, _ = world.draw(rng, 500, shift=6.0)
    found = weighted("accuracy", world.reference, world.predictions(features))
    assert found.estimate is None
    assert "outside the support" in found.refused
    features, _ = world.draw(rng, 1_000)
    features[:100, 0] += 12  # a tenth of the rows, where nothing else is
    found = weighted("accuracy", world.reference, world.predictions(features))
    assert "11% of the window's rows" in found.refused


def test_labels_that_turn_around_are_not_seen_and_this_is_what_the_text_says(world: World) -> None:
    features, labels = world.draw(np.random.default_rng(3), 2_000)
    window = world.predictions(features)
    found = estimate("accuracy", world.reference, window)
    real = realised("accuracy", ~labels, window.probabilities)
    assert found.low is not None
    assert real is not None
    assert found.low > real + 0.2


def test_too_few_rows_or_one_class_give_no_estimate(world: World) -> None:
    few = Predictions(np.full(20, 0.5), np.zeros((20, 2)))
    assert "not enough data" in estimate("f1", world.reference, few).refused
    assert "not enough data" in weighted("f1", world.reference, few).refused
    scores = np.linspace(0, 1, 300)
    one = Reference(Predictions(scores), np.ones(300, dtype=bool))
    assert "one class" in estimate("accuracy", one, Predictions(scores)).refused


def test_what_makes_no_sense_is_refused(world: World) -> None:
    window = Predictions(np.full(200, 0.5))
    with pytest.raises(InvalidRequest, match="accuracy, precision"):
        estimate("logloss", world.reference, window)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="same features"):
        weighted("f1", world.reference, window)
    with pytest.raises(InvalidRequest, match="between 0 and 1"):
        Predictions(np.array([0.5, 1.5]))
    with pytest.raises(InvalidRequest, match="300 probabilities and 200"):
        Reference(Predictions(np.linspace(0, 1, 300)), np.ones(200, dtype=bool))
    with pytest.raises(InvalidRequest, match="not of 2 rows"):
        Predictions(np.array([0.5, 0.5]), np.zeros((3, 1)))

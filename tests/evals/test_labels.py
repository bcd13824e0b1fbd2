from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import cross_val_predict

from evals.labels import suspect_labels
from infra.errors import InvalidRequest


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels of handwritten digits, 50 of which are wrong; where; and what a model thinks."""
    images, truth = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    wrong = rng.choice(truth.size, size=50, replace=False)
    labels = truth.copy()
    labels[wrong] = (truth[wrong] + rng.integers(1, 10, size=50)) % 10
    model = RandomForestClassifier(50, random_state=0)
    return labels, wrong, cross_val_predict(model, images, labels, cv=3, method="predict_proba")


def test_planted_wrong_labels_are_found_first(digits) -> None:  # type: ignore[no-untyped-def]
    labels, wrong, probabilities = digits
    found = suspect_labels(labels, probabilities)
    assert np.isin(wrong, found.rows).mean() >= 0.75
    assert np.isin(found.rows[:40], wrong).mean() >= 0.9
    assert found.quality.shape == labels.shape
    assert np.median(found.quality[wrong]) < 0.05 < np.median(found.quality)


def test_suggested_label_is_mostly_the_true_one(digits) -> None:  # type: ignore[no-untyped-def]
    labels, wrong, probabilities = digits
    found = suspect_labels(labels, probabilities)
    truth = load_digits(return_X_y=True)[1]
    planted = np.isin(found.rows, wrong)
    assert (found.suggested[planted] == truth[found.rows[planted]]).mean() >= 0.85


def test_share_of_suspects_has_an_interval(digits) -> None:  # type: ignore[no-untyped-def]
    labels, _, probabilities = digits
    found = suspect_labels(labels, probabilities)
    assert found.share.low < 50 / labels.size < found.share.high
    assert found.share.estimate == found.rows.size / labels.size


@pytest.mark.parametrize(
    ("labels", "probabilities", "told"),
    [
        ([0, 1], [[0.5, 0.5]], "shape"),
        ([0, 2], [[0.5, 0.5]] * 2, "0 to 1"),
        (["a", "b"], [[0.5, 0.5]] * 2, "0 to 1"),
        ([0, 1], [[0.5, 0.5], [0.5, 0.9]], "row 1"),
        ([0, 1], [[0.5, 0.5], [0.5, float("nan")]], "row 1"),
        (np.zeros(0, dtype=int), np.zeros((0, 2)), "at least one"),
    ],
)
def test_labels_that_cannot_be_judged_are_refused(labels, probabilities, told) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InvalidRequest, match=told):
        suspect_labels(labels, probabilities)

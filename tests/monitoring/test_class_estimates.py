from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import binom
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    precision_score,
    recall_score,
)

from infra.errors import InvalidRequest
from monitoring.class_estimates import (
    CLASS_METRICS,
    FORMULAS,
    ClassPredictions,
    ClassReference,
    estimate,
)


def drawn(rows: int, seed: int, *, shift: float = 0.0) -> tuple[Any, Any, Any]:
    """Rows of three classes, and what an overconfident classifier says of them."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(rows, 2)) + shift
    logits = features @ np.array([[1.5, -1.0, 0.0], [0.0, 1.0, -1.5]])
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (rng.random((rows, 1)) > np.cumsum(chances, axis=1)[:, :-1]).sum(axis=1)
    said = np.exp(2 * logits) / np.exp(2 * logits).sum(axis=1, keepdims=True)
    return features, labels, said


def realised(metric: str, labels: Any, said: Any) -> float:
    """What labels say."""
    return FORMULAS[metric](confusion_matrix(labels, said.argmax(axis=1)).astype(float))


@pytest.fixture(scope="module")
def reference() -> ClassReference:
    features, labels, said = drawn(3_000, 0)
    return ClassReference(ClassPredictions(said, features), labels)


@pytest.mark.parametrize("metric", CLASS_METRICS)
def test_bounds_enclose_what_labels_say_where_nothing_moved(
    reference: ClassReference, metric: str
) -> None:
    plain = ClassReference(ClassPredictions(reference.predictions.probabilities), reference.labels)
    _, labels, said = drawn(400, 100)
    found = estimate(metric, plain, ClassPredictions(said))
    assert found.low is not None
    assert found.high is not None
    assert found.low <= realised(metric, labels, said) <= found.high
    assert found.high - found.low < 0.15


# Bounds of 95 % that hold enclose fewer than `binom.ppf(0.001, windows, 0.95)` once in a thousand
# times: 179 of 200. The reference is drawn anew for each window, as what one has by chance
# all windows beside it would share.
@pytest.mark.slow
@pytest.mark.parametrize("metric", CLASS_METRICS)
def test_bounds_enclose_what_labels_say_whatever_the_reference(metric: str) -> None:
    inside, windows = 0, 200
    for seed in range(windows):
        _, known, before = drawn(1_000, 40_000 + seed)
        _, labels, said = drawn(400, 20_000 + seed)
        reference = ClassReference(ClassPredictions(before), known)
        found = estimate(metric, reference, ClassPredictions(said), seed=seed)
        assert found.low is not None
        assert found.high is not None
        inside += found.low <= realised(metric, labels, said) <= found.high
    assert inside >= binom.ppf(0.001, windows, 0.95), inside


def test_realised_metrics_are_those_of_scikit_learn() -> None:
    _, labels, said = drawn(500, 1)
    predicted = said.argmax(axis=1)
    assert realised("accuracy", labels, said) == accuracy_score(labels, predicted)
    for name, metric in (
        ("precision", precision_score),
        ("recall", recall_score),
        ("f1", f1_score),
    ):
        expected = metric(labels, predicted, average="macro")
        assert realised(f"macro_{name}", labels, said) == pytest.approx(expected)


def test_a_window_outside_of_the_reference_is_refused(reference: ClassReference) -> None:
    features, _, said = drawn(400, 2, shift=9.0)
    found = estimate("accuracy", reference, ClassPredictions(said, features))
    assert found.estimate is None
    assert "outside the support" in found.refused


def test_what_makes_no_sense_is_refused(reference: ClassReference) -> None:
    _, labels, said = drawn(300, 3)
    with pytest.raises(InvalidRequest, match="macro_f1"):
        estimate("f2", reference, ClassPredictions(said))
    with pytest.raises(InvalidRequest, match="sum to 1"):
        ClassPredictions(said * 2)
    with pytest.raises(InvalidRequest, match="one of 3 classes"):
        ClassReference(ClassPredictions(said), labels + 1)
    with pytest.raises(InvalidRequest, match="another number"):
        estimate("accuracy", reference, ClassPredictions(np.full((300, 2), 0.5)))
    few = ClassPredictions(said[:20])
    assert "not enough data" in estimate("accuracy", reference, few).refused

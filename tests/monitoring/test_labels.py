from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from infra.errors import InvalidRequest
from monitoring.labels import follow

ROWS = 300
WINDOWS = 20


def history(turned: Any, metric: Any = "accuracy", seed: int = 0) -> Any:
    """Follow a classifier some of whose rows, by window, mean the opposite."""
    rng = np.random.default_rng(seed)
    scores = rng.uniform(size=ROWS * WINDOWS)
    labels = rng.random(scores.size) < scores
    wrong = rng.random(scores.size) < np.repeat(turned, ROWS)
    return follow(metric, labels ^ wrong, scores, rows=ROWS, seed=seed)


@pytest.mark.parametrize("metric", ["accuracy", "auroc", "f1"])
def test_meaning_that_turns_at_once_is_instantaneous_and_dated(metric: Any) -> None:
    found = history(np.where(np.arange(WINDOWS) < 12, 0.0, 0.3), metric)
    assert found.change.shape == "instantaneous"
    assert found.change.start == 12
    assert found.change.after < found.change.before
    assert found.values.size == WINDOWS


def test_what_is_called_positive_is_for_the_caller_to_say() -> None:
    rng = np.random.default_rng(5)
    scores = rng.uniform(0, 0.4, size=ROWS * WINDOWS)
    labels = rng.random(scores.size) < scores
    found = follow("recall", labels, scores, rows=ROWS, threshold=0.2)
    assert found.values.mean() == pytest.approx(
        (labels & (scores >= 0.2)).sum() / labels.sum(), abs=0.02
    )
    assert follow("recall", labels, scores, rows=ROWS).values.max() == 0


def test_meaning_that_stays_has_no_shape() -> None:
    assert history(np.zeros(WINDOWS)).change.shape == "none"


@pytest.mark.parametrize("metric", ["accuracy", "precision", "recall", "f1", "auroc"])
def test_rare_positives_that_stay_as_they_are_name_no_change(metric: Any) -> None:
    """Of 12 streams at level 0.05, four or more would show by chance once in 450 times."""
    rows, streams, named = 300, 12, 0
    for seed in range(streams):
        rng = np.random.default_rng(seed)
        labels = rng.random(rows * WINDOWS) < 0.006
        logits = rng.normal(np.where(labels, 2.5, -2.0))
        change = follow(metric, labels, 1 / (1 + np.exp(-logits)), rows=rows, seed=seed).change
        named += change.shape not in {"none", "not_enough_data"}
    assert named < 4


def test_recall_that_falls_is_seen_among_rare_positives() -> None:
    rng = np.random.default_rng(1)
    labels = rng.random(2_000 * WINDOWS) < 0.006
    at = np.repeat(np.arange(WINDOWS), 2_000)
    logits = rng.normal(np.where(labels & (at < 10), 2.5, -2.0))
    found = follow("recall", labels, 1 / (1 + np.exp(-logits)), rows=2_000)
    assert found.change.shape == "instantaneous"
    assert found.change.start == 10


def test_a_rhythm_of_meaning_is_cyclic() -> None:
    found = history(0.2 + 0.2 * np.sin(2 * np.pi * np.arange(WINDOWS) / 5))
    assert found.change.shape == "cyclic"
    assert found.change.period == pytest.approx(5, abs=0.4)


def test_windows_without_a_value_are_left_out_and_counted() -> None:
    scores = np.full(ROWS * 10, 0.9)
    labels = np.repeat(np.arange(10) != 3, ROWS)
    found = follow("recall", labels, scores, rows=ROWS)
    assert found.left_out == 1
    assert found.values.size == 9
    none = follow("recall", np.zeros(0, dtype=bool), np.zeros(0), rows=ROWS)
    assert none.change.shape == "not_enough_data"
    few = follow("recall", np.zeros(5, dtype=bool), np.zeros(5), rows=ROWS)
    assert few.change.shape == "not_enough_data"


def test_what_makes_no_sense_is_refused() -> None:
    labels, scores = np.zeros(10, dtype=bool), np.zeros(10)
    with pytest.raises(InvalidRequest, match="accuracy, precision"):
        follow("speed", labels, scores, rows=5)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="10 labels, 9 probabilities"):
        follow("accuracy", labels, scores[:9], rows=5)

"""Trees that were read from JSON say what the library that grew them says."""

from __future__ import annotations

import json

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from benchmarks.grounding_training import as_trees
from monitoring.grounding import model, trees
from monitoring.grounding.detectors import open_detector
from monitoring.grounding.features import NAMES, SIGNS


def test_trees_say_what_scikit_learn_says_also_where_values_are_not_known() -> None:
    ensemble = pytest.importorskip("sklearn.ensemble")
    rng = np.random.default_rng(3)
    rows = rng.random((2_000, len(NAMES)))
    rows[rng.random(rows.shape) < 0.1] = np.nan
    labels = np.nan_to_num(rows[:, 0]) + 0.3 * rng.random(2_000) < 0.6
    learner = ensemble.HistGradientBoostingClassifier(
        max_iter=30, monotonic_cst=list(SIGNS.values()), random_state=0
    )
    with threadpool_limits(1):  # threads of several tests would wait for each other's
        expected = learner.fit(rows, labels).decision_function(rows)
    grown = as_trees(learner)
    np.testing.assert_allclose(grown.logits(rows), expected, atol=1e-6)
    stored = trees.from_json(json.loads(json.dumps(trees.as_json(grown))))
    np.testing.assert_allclose(stored.logits(rows), expected, atol=2e-3)


def test_shipped_model_is_small_and_never_less_sure_of_more_support() -> None:
    shipped = model.shipped()
    assert len(json.dumps(model.as_json(shipped))) < 300_000
    rng = np.random.default_rng(5)
    rows = rng.random((200, len(NAMES)))
    before = shipped.trees.logits(rows)
    for column, name in enumerate(NAMES):
        moved = rows.copy()
        moved[:, column] = np.clip(moved[:, column] + rng.random(200), 0, 1)
        change = (shipped.trees.logits(moved) - before) * SIGNS[name]
        assert change.min() >= -1e-3, name


def test_shipped_model_survives_being_written_and_read() -> None:
    shipped = model.shipped()
    again = model.from_json(json.loads(json.dumps(model.as_json(shipped))))
    rows = np.random.default_rng(1).random((50, len(NAMES)))
    np.testing.assert_array_equal(again.trees.logits(rows), shipped.trees.logits(rows))
    assert again.unsupported_from == shipped.unsupported_from
    assert 0 < shipped.grounded_below < shipped.unsupported_from < 1


def test_an_option_that_a_detector_does_not_have_is_told_with_those_that_it_has() -> None:
    with pytest.raises(model.InvalidConfiguration, match="'trees': .*'file'; its options are mod"):
        open_detector("trees", file="groundedness.json")


def test_model_of_another_form_is_refused_with_what_to_do(tmp_path) -> None:
    path = tmp_path / "model.json"
    path.write_text('{"format": 99}')
    with pytest.raises(model.InvalidConfiguration, match="grounding_fit"):
        model.read(path)

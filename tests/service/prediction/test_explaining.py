"""Which pipelines are kept for explanations, and what is remembered of those that are of no use."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from sklearn.pipeline import Pipeline
from sklearn.tree import DecisionTreeClassifier

import classical_models
from classical_models import ROW, classifier
from infra.errors import EngineFailed, InvalidRequest, NotFound
from service.prediction.explaining import MOST_KEPT, Explainer
from service.prediction.loading import Loaded
from service.prediction.recording import Predicted

TREE = Pipeline([("features", "passthrough"), ("estimator", DecisionTreeClassifier())])


def loaded(name: str) -> Loaded:
    found = SimpleNamespace(key=(name, "digest"), served=f"{name}@v1", model=classifier().model)
    return cast("Loaded", found)


@pytest.fixture
def reads() -> Counter[str]:
    return Counter()


@pytest.fixture
def explainer(reads: Counter[str]) -> Explainer:
    def load(asked: Loaded) -> Any:
        name, _ = asked.key
        reads[name] += 1
        if name == "absent":
            raise NotFound("file", "model.skops")
        return TREE if name == "tree" else classifier().pipeline

    return Explainer(load)


@pytest.mark.parametrize("name", ["tree", "absent"])
def test_what_cannot_be_explained_is_read_once_and_refused_each_time(
    name: str, explainer: Explainer, reads: Counter[str]
) -> None:
    for _ in range(3):
        with pytest.raises(InvalidRequest, match=f"'{name}@v1'"):
            explainer.check(loaded(name))
    assert reads == {name: 1}


def test_what_was_explained_least_recently_goes_first(
    explainer: Explainer, reads: Counter[str]
) -> None:
    for number in range(MOST_KEPT):
        explainer.check(loaded(str(number)))
    explainer.check(loaded("0"))
    explainer.check(loaded("one more"))
    explainer.check(loaded("0"))
    explainer.check(loaded("1"))
    assert (reads["0"], reads["1"]) == (1, 2)


def test_rows_that_features_cannot_be_made_of_are_the_models_failure(explainer: Explainer) -> None:
    columns = classical_models.columns_of([ROW])
    table = SimpleNamespace(columns=columns)
    predicted = SimpleNamespace(loaded=loaded("churn"), table=table, chosen=np.array([1]))
    assert len(explainer.explain(cast("Predicted", predicted))) == 1
    del columns["plan"]
    with pytest.raises(EngineFailed, match="cannot be explained on these rows"):
        explainer.explain(cast("Predicted", predicted))

"""Gives classes of any kind to an estimator that knows only 0, 1, 2, ..., and returns them."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, clone


class Coded(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier whose inner one is trained on places of classes.

    Args:
        estimator: untrained.
    """

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator

    def fit(self, features: Any, labels: Any, sample_weight: Any = None) -> Coded:
        self.classes_, codes = np.unique(labels, return_inverse=True)
        self.estimator_ = clone(self.estimator).fit(features, codes, sample_weight=sample_weight)
        return self

    def predict_proba(self, features: Any) -> Any:
        return self.estimator_.predict_proba(features)

    def predict(self, features: Any) -> Any:
        return self.classes_[np.argmax(self.predict_proba(features), axis=1)]

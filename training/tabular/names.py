"""What can be named in a specification of a classical model: estimators and metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

Metric = Literal[
    "log_loss", "accuracy", "balanced_accuracy", "f1_macro", "roc_auc", "rmse", "mae", "r2"
]


@dataclass(frozen=True, slots=True)
class Scored:
    """What a metric is of, and which way is better."""

    task: Literal["classification", "regression"]
    higher_is_better: bool


METRICS: Mapping[str, Scored] = MappingProxyType(
    {
        "log_loss": Scored("classification", higher_is_better=False),
        "accuracy": Scored("classification", higher_is_better=True),
        "balanced_accuracy": Scored("classification", higher_is_better=True),
        "f1_macro": Scored("classification", higher_is_better=True),
        "roc_auc": Scored("classification", higher_is_better=True),
        "rmse": Scored("regression", higher_is_better=False),
        "mae": Scored("regression", higher_is_better=False),
        "r2": Scored("regression", higher_is_better=True),
    }
)


@dataclass(frozen=True, slots=True)
class Estimator:
    """Where an estimator is found, and what it takes."""

    module: str
    name: str
    fixed: Mapping[str, Any] = field(default_factory=dict)
    takes_seed: bool = True
    takes_class_weight: bool = True
    takes_codes: bool = False
    """Whether classes must be given as 0, 1, 2, ..."""
    extra: str = "classical"
    """The extra of the package that holds it."""


_ONE = MappingProxyType({"n_jobs": 1})
_LINEAR, _ENSEMBLE, _TREE = "sklearn.linear_model", "sklearn.ensemble", "sklearn.tree"
_LIGHT = MappingProxyType({"n_jobs": 1, "verbosity": -1, "deterministic": True})
_LOGISTIC = MappingProxyType({"max_iter": 1_000})

CLASSIFIERS: Mapping[str, Estimator] = MappingProxyType(
    {
        "logistic_regression": Estimator(_LINEAR, "LogisticRegression", _LOGISTIC),
        "decision_tree": Estimator(_TREE, "DecisionTreeClassifier"),
        "random_forest": Estimator(_ENSEMBLE, "RandomForestClassifier", _ONE),
        "extra_trees": Estimator(_ENSEMBLE, "ExtraTreesClassifier", _ONE),
        "hist_gradient_boosting": Estimator(_ENSEMBLE, "HistGradientBoostingClassifier"),
        "lightgbm": Estimator("lightgbm", "LGBMClassifier", _LIGHT, extra="boosters"),
        "xgboost": Estimator(
            "xgboost",
            "XGBClassifier",
            _ONE,
            takes_class_weight=False,
            takes_codes=True,
            extra="boosters",
        ),
    }
)
REGRESSORS: Mapping[str, Estimator] = MappingProxyType(
    {
        "ridge": Estimator(_LINEAR, "Ridge", takes_class_weight=False),
        "decision_tree": Estimator(_TREE, "DecisionTreeRegressor", takes_class_weight=False),
        "random_forest": Estimator(
            _ENSEMBLE, "RandomForestRegressor", _ONE, takes_class_weight=False
        ),
        "extra_trees": Estimator(_ENSEMBLE, "ExtraTreesRegressor", _ONE, takes_class_weight=False),
        "hist_gradient_boosting": Estimator(
            _ENSEMBLE, "HistGradientBoostingRegressor", takes_class_weight=False
        ),
        "lightgbm": Estimator(
            "lightgbm", "LGBMRegressor", _LIGHT, takes_class_weight=False, extra="boosters"
        ),
        "xgboost": Estimator(
            "xgboost", "XGBRegressor", _ONE, takes_class_weight=False, extra="boosters"
        ),
    }
)
DUMMY = MappingProxyType(
    {
        "classification": Estimator(
            "sklearn.dummy",
            "DummyClassifier",
            MappingProxyType({"strategy": "prior"}),
            takes_class_weight=False,
        ),
        "regression": Estimator(
            "sklearn.dummy", "DummyRegressor", takes_seed=False, takes_class_weight=False
        ),
    }
)
LINEAR = MappingProxyType({"classification": "logistic_regression", "regression": "ridge"})
"""The simple model that every other has to be worth."""

"""Builds pipelines: features and an estimator, fitted together and only on what is trained on."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from infra.classical import Column
from infra.classical_rows import is_text
from infra.errors import InvalidRequest
from infra.plugins import require
from training.tabular.names import CLASSIFIERS, REGRESSORS, Estimator
from training.tabular.specification import Classical, Features

EXTRA = "classical"
FEATURES, MODEL = "features", "model"
"""The steps of a pipeline."""
NUMBERS, CATEGORIES = "numbers", "categories"
"""The parts of the first, by their columns."""
CALIBRATION_FOLDS = 3


def build(
    spec: Classical, columns: Sequence[Column], estimator: str, parameters: Mapping[str, Any]
) -> Any:
    """Return an untrained pipeline whose inputs are encoded columns.

    Raises:
        InvalidRequest: the estimator has no such parameter.
        MissingDependency: its package is not installed.
    """
    known = CLASSIFIERS if spec.task == "classification" else REGRESSORS
    model = construct(known[estimator], parameters, spec)
    if spec.imbalance.calibration != "none":
        calibration = require("sklearn.calibration", extra=EXTRA)
        model = calibration.CalibratedClassifierCV(
            model, method=spec.imbalance.calibration, cv=CALIBRATION_FOLDS
        )
    return assemble(columns, spec.features, model)


def assemble(columns: Sequence[Column], features: Features, model: Any) -> Any:
    """Put what makes features before a model."""
    pipeline = require("sklearn.pipeline", extra=EXTRA)
    return pipeline.Pipeline([(FEATURES, _features(columns, features)), (MODEL, model)])


def construct(estimator: Estimator, parameters: Mapping[str, Any], spec: Classical) -> Any:
    """Return an untrained estimator. Raises as `build` does."""
    kind = getattr(require(estimator.module, extra=estimator.extra), estimator.name)
    given = {**estimator.fixed, **parameters}
    if estimator.takes_seed:
        given.setdefault("random_state", spec.seed)
    if spec.imbalance.class_weight != "none":
        if not estimator.takes_class_weight:
            raise InvalidRequest(
                f"imbalance.class_weight: {estimator.name} takes none; use resampling"
            )
        given.setdefault("class_weight", spec.imbalance.class_weight)
    signature = inspect.signature(kind).parameters
    known = set(signature)
    if any(each.kind is inspect.Parameter.VAR_KEYWORD for each in signature.values()):
        known |= set(kind().get_params())
    for name in parameters:
        if name not in known:
            raise InvalidRequest(
                f"candidates: {estimator.name} has no parameter {name!r}; there are "
                f"{', '.join(sorted(known))}"
            )
    if not estimator.takes_codes:
        return kind(**given)
    from training.tabular.coded import Coded

    return Coded(kind(**given))


def feature_names(pipeline: Any) -> tuple[str, ...]:
    """Return what a trained pipeline makes of its columns."""
    return tuple(str(each) for each in pipeline.named_steps[FEATURES].get_feature_names_out())


def _features(columns: Sequence[Column], asked: Features) -> Any:
    compose = require("sklearn.compose", extra=EXTRA)
    numbers = [each.name for each in columns if not is_text(each)]
    texts = [each.name for each in columns if is_text(each)]
    parts = []
    if numbers:
        parts.append((NUMBERS, _numbers(asked), numbers))
    if texts:
        parts.append((CATEGORIES, _categories(asked), texts))
    return compose.ColumnTransformer(parts, verbose_feature_names_out=False)


def _numbers(asked: Features) -> Any:
    pipeline = require("sklearn.pipeline", extra=EXTRA)
    impute = require("sklearn.impute", extra=EXTRA)
    preprocessing = require("sklearn.preprocessing", extra=EXTRA)
    how = asked.numbers.imputation
    filler = (
        impute.SimpleImputer(strategy="constant", fill_value=0.0, keep_empty_features=True)
        if how == "zero"
        else impute.SimpleImputer(strategy=how, keep_empty_features=True)
    )
    steps = [("imputation", filler)]
    if asked.numbers.scaling == "standard":
        steps.append(("scaling", preprocessing.StandardScaler()))
    elif asked.numbers.scaling == "range":
        steps.append(("scaling", preprocessing.MinMaxScaler()))
    return pipeline.Pipeline(steps)


def _categories(asked: Features) -> Any:
    preprocessing = require("sklearn.preprocessing", extra=EXTRA)
    if asked.categories == "one_hot":
        return preprocessing.OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    return preprocessing.OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)

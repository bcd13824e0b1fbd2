"""Small real models of each format, with columns of each kind, and the artifacts they make up."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import skops.io
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType, StringTensorType
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from infra import classical
from infra.artifacts.refs import Reference
from infra.artifacts.store import ArtifactStore
from infra.classical import Column, ModelFile
from infra.classical_rows import encode, is_text
from training.tabular.columns import as_frame as frame_of

COLUMNS = (
    Column(name="age", type="float64", nullable=True, low=18.0, high=90.0),
    Column(name="visits", type="int64"),
    Column(name="trial", type="bool"),
    Column(name="plan", type="string", categories=("basic", "pro", "team"), nullable=True),
)
NAMES = tuple(column.name for column in COLUMNS)
ROW: dict[str, Any] = {"age": 41.5, "visits": 3, "trial": False, "plan": "pro"}


@dataclass(frozen=True)
class Made:
    """A model as it would be stored."""

    model: ModelFile
    onnx: bytes
    skops: bytes
    pipeline: Pipeline


def rows(count: int, *, seed: int = 0) -> list[dict[str, Any]]:
    """Return rows with a missing value here and there."""
    rng = np.random.default_rng(seed)
    plans = ["basic", "pro", "team", None]
    return [
        {
            "age": None if rng.random() < 0.1 else float(rng.uniform(18, 90)),
            "visits": int(rng.integers(0, 20)),
            "trial": bool(rng.random() < 0.5),
            "plan": plans[int(rng.integers(len(plans)))],
        }
        for _ in range(count)
    ]


def columns_of(given: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Return rows as a runtime takes them."""
    return {each.name: encode([row.get(each.name) for row in given], each) for each in COLUMNS}


@cache
def classifier(seed: int = 0, labels: tuple[Any, ...] = ("no", "yes")) -> Made:
    """Return a fitted classifier of as many classes as there are labels."""
    given = rows(240, seed=seed)
    columns = columns_of(given)
    score = columns["visits"] + 8 * columns["trial"] + np.nan_to_num(columns["age"], nan=40) / 9
    cuts = np.quantile(score, np.arange(1, len(labels)) / len(labels))
    target = np.searchsorted(cuts, score)
    pipeline = _pipeline(LogisticRegression()).fit(
        frame_of(columns), np.array(labels, dtype=object if _is_text(labels) else None)[target]
    )
    return _made(pipeline, labels, seed)


@cache
def regressor(seed: int = 0) -> Made:
    given = rows(240, seed=seed)
    columns = columns_of(given)
    target = 3.0 * columns["visits"] + np.nan_to_num(columns["age"], nan=40)
    return _made(_pipeline(Ridge()).fit(frame_of(columns), target), None, seed)


def put(
    store: ArtifactStore,
    made: Made,
    folder: Path,
    *,
    name: str = "churn",
    alias: str | None = "production",
    **changes: Any,
) -> Reference:
    """Store a model as the next version of `model/NAME`; `changes` are of its `model.json`."""
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(made.onnx)
    (folder / "model.skops").write_bytes(made.skops)
    classical.write(folder, made.model.model_copy(update=changes))
    reference = store.put(folder, f"model/{name}")
    if alias is not None:
        store.tag(str(reference), alias)
    return reference


def with_file(made: Made, data: bytes) -> Made:
    """Return the same model with another graph."""
    return replace(made, onnx=data)


def _is_text(labels: tuple[Any, ...]) -> bool:
    return isinstance(labels[0], str)


def _pipeline(estimator: Any) -> Pipeline:
    numbers = [each.name for each in COLUMNS if not is_text(each)]
    texts = [each.name for each in COLUMNS if is_text(each)]
    features = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), numbers),
            ("texts", OneHotEncoder(handle_unknown="ignore"), texts),
        ]
    )
    return Pipeline([("features", features), ("estimator", estimator)])


def _made(pipeline: Pipeline, labels: tuple[Any, ...] | None, seed: int) -> Made:
    types = [
        (each.name, StringTensorType([None, 1]) if is_text(each) else FloatTensorType([None, 1]))
        for each in COLUMNS
    ]
    more: dict[str, Any] = {"final_types": [("prediction", FloatTensorType([None, 1]))]}
    if labels is not None:
        more = {"options": {id(pipeline): {"zipmap": False}}}
    graph = convert_sklearn(pipeline, initial_types=types, target_opset=18, **more)
    return Made(
        ModelFile(
            format="onnx",
            file="model.onnx",
            task="regression" if labels is None else "classification",
            inputs=COLUMNS,
            target="churned",
            classes=labels,
            features=tuple(pipeline[:-1].get_feature_names_out()),
            seed=seed,
            trusted=tuple(skops.io.get_untrusted_types(data=skops.io.dumps(pipeline))),
        ),
        graph.SerializeToString(),
        skops.io.dumps(pipeline),
        pipeline,
    )


@dataclass(frozen=True)
class Native:
    """A model as one runtime takes it, and what it should answer."""

    model: ModelFile
    data: bytes
    predict: Any
    """From columns to probabilities, or to a regression's values."""


@cache
def native(name: str, labels: tuple[Any, ...] | None = ("no", "yes")) -> Native:
    """Return a model in the format of a runtime; boosters have columns of numbers alone."""
    if name in {"onnx", "skops"}:
        made = regressor() if labels is None else classifier(labels=labels)
        changes = {"format": name, "file": f"model.{name}"}
        pipeline = made.pipeline
        predict = pipeline.predict if labels is None else pipeline.predict_proba
        return Native(
            made.model.model_copy(update=changes),
            made.onnx if name == "onnx" else made.skops,
            lambda columns: predict(frame_of(columns)),
        )
    columns = columns_of(rows(240))
    score = columns["visits"] + 8 * columns["trial"] + np.nan_to_num(columns["age"], nan=40) / 9
    cuts = np.quantile(score, np.arange(1, len(labels or ())) / len(labels or (1,)))
    target = score if labels is None else np.searchsorted(cuts, score)
    names = [each.name for each in COLUMNS if not is_text(each)]
    estimator, data = _booster(name, _matrix(columns, names), target, has_classes=bool(labels))
    model = ModelFile(
        format=name,  # type: ignore[arg-type]
        file=f"model.{name}",
        task="regression" if labels is None else "classification",
        inputs=tuple(each for each in COLUMNS if not is_text(each)),
        target="churned",
        classes=labels,
        features=tuple(names),
    )
    predict = estimator.predict if labels is None else estimator.predict_proba
    return Native(model, data, lambda given: predict(_matrix(given, names)))


def _matrix(columns: Any, names: list[str]) -> Any:
    return np.column_stack([columns[name] for name in names])


def _booster(name: str, matrix: Any, target: Any, *, has_classes: bool) -> tuple[Any, bytes]:
    if name == "xgboost":
        import xgboost

        kind = xgboost.XGBClassifier if has_classes else xgboost.XGBRegressor
        fitted = kind(n_estimators=10, n_jobs=1).fit(matrix, target)
        return fitted, bytes(fitted.get_booster().save_raw("ubj"))
    import lightgbm

    wanted = lightgbm.LGBMClassifier if has_classes else lightgbm.LGBMRegressor
    fitted = wanted(n_estimators=10, n_jobs=1, verbosity=-1).fit(matrix, target)
    return fitted, fitted.booster_.model_to_string().encode()

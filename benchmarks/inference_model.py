"""A small classifier as an artifact, for the benchmark of inference: rows like those of Adult."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from infra import classical
from infra.classical import Column, ModelFile
from infra.plugins import require

NUMBERS = ("age", "education_years", "capital_gain", "capital_loss", "hours_per_week", "weight")
TEXTS = {
    "workclass": 8,
    "education": 16,
    "marital_status": 7,
    "occupation": 14,
    "relationship": 6,
    "sex": 2,
    "country": 40,
}
"""With the number of categories of each."""
ROWS = 2_000
CLASSES = ("at most 50K", "over 50K")


def write(folder: Path, *, seed: int = 0) -> ModelFile:
    """Fit a logistic regression on made-up rows, and write graph and `model.json`."""
    pipeline, columns = _fitted(seed)
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(_graph(pipeline, columns))
    model = ModelFile(
        format="onnx",
        file="model.onnx",
        task="classification",
        inputs=columns,
        target="income",
        classes=CLASSES,
        seed=seed,
    )
    classical.write(folder, model)
    return model


def row(*, seed: int = 1) -> dict[str, Any]:
    """Return a row that the model takes."""
    return {name: values[0] for name, values in _values(1, seed).items()}


def tensors(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a row as the inputs of a request of the Open Inference Protocol."""
    return [
        {
            "name": name,
            "datatype": "BYTES" if isinstance(value, str) else "FP64",
            "shape": [1, 1],
            "data": [value],
        }
        for name, value in row.items()
    ]


def _values(rows: int, seed: int) -> dict[str, list[Any]]:
    rng = np.random.default_rng(seed)
    numbers: dict[str, list[Any]] = {name: rng.uniform(0, 90, rows).tolist() for name in NUMBERS}
    texts: dict[str, list[Any]] = {
        name: [f"{name} {code}" for code in rng.integers(0, count, rows)]
        for name, count in TEXTS.items()
    }
    return {**numbers, **texts}


def _fitted(seed: int) -> tuple[Any, tuple[Column, ...]]:
    sklearn = {
        name: require(f"sklearn.{name}", extra="classical")
        for name in ("compose", "impute", "linear_model", "pipeline", "preprocessing")
    }
    polars = require("polars", extra="classical")
    values = _values(ROWS, seed)
    features = sklearn["compose"].ColumnTransformer(
        [
            ("numbers", sklearn["preprocessing"].StandardScaler(), list(NUMBERS)),
            ("texts", sklearn["preprocessing"].OneHotEncoder(handle_unknown="ignore"), list(TEXTS)),
        ]
    )
    pipeline = sklearn["pipeline"].make_pipeline(
        features, sklearn["linear_model"].LogisticRegression(max_iter=300)
    )
    target = np.where(np.array(values["age"]) + values["hours_per_week"] > 90, *CLASSES[::-1])
    pipeline.fit(polars.DataFrame(values), target)
    numbers = tuple(Column(name=name, type="float64", low=0, high=90) for name in NUMBERS)
    texts = tuple(
        Column(name=name, type="string", categories=tuple(sorted(set(values[name]))))
        for name in TEXTS
    )
    return pipeline, (*numbers, *texts)


def _graph(pipeline: Any, columns: tuple[Column, ...]) -> bytes:
    skl2onnx = require("skl2onnx", extra="classical")
    types = require("skl2onnx.common.data_types", extra="classical")
    inputs = [
        (
            each.name,
            (types.StringTensorType if each.type == "string" else types.FloatTensorType)([None, 1]),
        )
        for each in columns
    ]
    graph = skl2onnx.convert_sklearn(
        pipeline, initial_types=inputs, options={id(pipeline): {"zipmap": False}}
    )
    data: bytes = graph.SerializeToString()
    return data

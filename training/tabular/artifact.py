"""Writes the folder that becomes a model's artifact, and tells whether its graph may serve."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra import classical
from infra.classical import ModelFile
from infra.errors import InvalidRequest
from infra.plugins import require
from training.tabular import exporting, joining, parity, pipelines
from training.tabular.open_views import OpenView
from training.tabular.parity import Parity
from training.tabular.preparation import Material
from training.tabular.specification import Classical

EVALUATION, REFERENCE, CARD, REPORT = (
    "evaluation.json", "reference.parquet", "card.md", "report.html",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Written:
    """A model in its folder."""

    model: ModelFile
    parity: Parity | None
    """Of the graph; None where there is none."""
    warning: str | None
    """Why the model is served without a graph."""


def write_model(
    folder: Path,
    pipeline: Any,
    material: Material,
    spec: Classical,
    *,
    thresholds: Mapping[str, float] | None,
    views: Sequence[OpenView] = (),
) -> Written:
    """Write the pipeline as skops and, where it says the same there, as a graph.

    Raises:
        InvalidRequest: the pipeline holds a type that nobody has reviewed.
    """
    columns = material.chosen.columns
    trusted = exporting.to_skops(pipeline, folder / exporting.SKOPS)
    joined = joining.remembered(views, columns)
    model = ModelFile(
        format="skops",
        file=exporting.SKOPS,
        task=spec.task,
        inputs=columns,
        target=spec.data.target,
        classes=material.train.classes,
        thresholds=None if thresholds is None else dict(thresholds),
        features=pipelines.feature_names(pipeline),
        views=joined,
        time=spec.data.time if joined else None,
        seed=spec.seed,
        libraries=exporting.libraries(),
        trusted=trusted,
    )
    found, warning = _graph(folder / exporting.ONNX, pipeline, material, model, spec=spec)
    if warning is None:
        model = model.model_copy(update={"format": "onnx", "file": exporting.ONNX})
    classical.write(folder, model)
    return Written(model, found, warning)


def write_reference(
    folder: Path, material: Material, model: ModelFile, said: NDArray[np.float64]
) -> None:
    """Write the rows held out, as they came, with what the model says of them.

    Monitoring compares what comes later with these, and a later model is asked of them: columns
    that told nothing yet are kept, and keys and times of views. `probability` is that of the class
    chosen.
    """
    polars = require("polars", extra="classical")
    names = [each.name for each in model.inputs]
    names = list(dict.fromkeys([*names, *material.chosen.left_out, *model.asked_for_views]))
    frame = material.raw_test.select(names)
    if model.classes is None:
        added = [polars.Series("prediction", said)]
    else:
        chosen = classical.decide(said, model)
        added = [
            polars.Series("prediction", [model.classes[place] for place in chosen], strict=False),
            polars.Series("probability", said[np.arange(len(said)), chosen]),
        ]
    target = material.raw_test[model.target]
    frame.with_columns(*added, target).write_parquet(folder / REFERENCE)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write figures; NaN is null."""
    text = json.dumps(finite(values), indent=1, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def as_values(parity: Parity | None) -> dict[str, Any] | None:
    """Return parity as JSON's values."""
    return None if parity is None else {**asdict(parity), "holds": parity.holds}


def _graph(
    path: Path, pipeline: Any, material: Material, model: ModelFile, *, spec: Classical
) -> tuple[Parity | None, str | None]:
    """Return how far the graph is from the pipeline, and why it may not serve, if so."""
    columns, allowed = material.chosen.columns, spec.accept.max_difference
    rows = parity.probe(material.test.features, columns, seed=spec.seed)
    found: Parity | None = None
    try:
        exporting.to_onnx(pipeline, columns, path)
        found = parity.compare(pipeline, path, model, rows, allowed=allowed)
    except InvalidRequest as error:
        why = error.message
    else:
        if found.holds:
            return found, None
        why = (
            f"The graph differs: {found.other_labels} of {found.rows:,} rows get another class, "
            f"and numbers are up to {found.difference:.2g} apart, where {allowed:g} is allowed"
        )
    path.unlink(missing_ok=True)
    return found, f"{why}; skops alone is served"


def finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    if isinstance(value, np.generic):
        return finite(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value

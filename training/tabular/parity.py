"""The parity gate: the graph says what the pipeline says, on real rows and on nasty ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from infra.classical import Column, ModelFile, decide
from infra.classical_rows import MISSING_TEXT, is_text
from infra.errors import InvalidRequest, first_line
from infra.plugins import require
from training.tabular import fitting
from training.tabular.columns import as_frame

if TYPE_CHECKING:
    import polars as pl

ROWS = 1_024
"""At least as many are compared."""
UNKNOWN = "\N{SNOWMAN} never seen"
FAR = 10.0
"""Ranges beyond what was trained on."""
HUGE = 1e12
EDGE_SHARE = 0.25
"""Of the rows, in which values are replaced by edges."""


@dataclass(frozen=True, slots=True)
class Parity:
    """How far a graph is from its pipeline."""

    rows: int
    other_labels: int
    """Rows for which another class is chosen."""
    difference: float
    """The largest, of probabilities; of amounts relative to their size, from 1 on."""
    allowed: float

    @property
    def holds(self) -> bool:
        return self.other_labels == 0 and self.difference <= self.allowed


def probe(real: pl.DataFrame, columns: Sequence[Column], *, seed: int) -> pl.DataFrame:
    """Return encoded rows to compare on: the real ones, edges of each column, mixtures of edges."""
    draw = np.random.default_rng(seed)
    whole = max(0, ROWS - len(real))
    places = np.concatenate(
        [np.arange(min(len(real), 2 * ROWS)), draw.integers(0, len(real), size=whole)]
    )
    values = {each.name: real[each.name].to_numpy()[places] for each in columns}
    edges = {each.name: _edges(each) for each in columns}
    count = max(len(each) for each in edges.values())
    single = {name: [mine] for name, mine in values.items()}
    for changed in columns:
        mine = edges[changed.name]
        rows = draw.integers(0, len(places), size=len(mine))
        for each in columns:
            kept = values[each.name][rows]
            single[each.name].append(mine if each is changed else kept)
    mixed = max(count, int(EDGE_SHARE * ROWS))
    for each in columns:
        single[each.name].append(draw.choice(edges[each.name], size=mixed))
        single[each.name].append(edges[each.name][:1])  # everything is missing
    return as_frame({name: np.concatenate(parts) for name, parts in single.items()})


def compare(
    pipeline: Any, graph: Path, model: ModelFile, rows: pl.DataFrame, *, allowed: float
) -> Parity:
    """Ask both of the same rows.

    Raises:
        InvalidRequest: the graph cannot be run, or lacks an output.
    """
    wanted = fitting.ask(pipeline, rows, model.classes)
    found = run(graph, rows, model)
    if found.shape != wanted.shape:
        raise InvalidRequest(f"The graph gives {found.shape}, and the pipeline {wanted.shape}")
    if model.task == "regression":
        apart = np.abs(found - wanted) / np.maximum(1.0, np.abs(wanted))
        return Parity(len(rows), 0, _largest(apart), allowed)
    other = int((decide(found, model) != decide(wanted, model)).sum())
    return Parity(len(rows), other, _largest(np.abs(found - wanted)), allowed)


def run(graph: Path, rows: pl.DataFrame, model: ModelFile) -> NDArray[np.float64]:
    """Return what a graph says of encoded rows: probabilities, or amounts of shape (rows,)."""
    runtime = require("onnxruntime", extra="classical")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    output = "prediction" if model.task == "regression" else "probabilities"
    try:
        session = runtime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        given = {
            each.name: _tensor(rows[each.name].to_numpy(), each.type)
            for each in session.get_inputs()
        }
        (found,) = session.run([output], given)
    except Exception as error:
        raise InvalidRequest(
            f"The graph {graph.name!r} cannot be run: {first_line(error)}"
        ) from error
    values = np.asarray(found, dtype=np.float64)
    return values.reshape(len(rows)) if model.task == "regression" else values


def _tensor(values: NDArray[Any], kind: str) -> NDArray[Any]:
    types = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(string)": object}
    return values.astype(types[kind]).reshape(-1, 1)


def _edges(column: Column) -> NDArray[Any]:
    """Return nasty values; the first is missing."""
    if is_text(column):
        known = [str(each) for each in (column.categories or ())[:1]]
        return np.array([MISSING_TEXT, UNKNOWN, *known, "x" * 300], dtype=object)
    low, high = column.low or 0.0, column.high or 1.0
    span = max(high - low, 1.0)
    return np.array(
        [np.nan, low, high, low - FAR * span, high + FAR * span, 0.0, -0.0, HUGE, -HUGE, 1e-300]
    )


def _largest(apart: NDArray[np.float64]) -> float:
    return float("inf") if np.isnan(apart).any() else float(apart.max(initial=0.0))

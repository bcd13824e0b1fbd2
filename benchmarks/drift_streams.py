"""Streams for the drift benchmark: without a change, with planted ones, and real ones."""

from __future__ import annotations

import gzip
import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]
Shape: TypeAlias = Literal["instantaneous", "gradual", "cyclic"]
SHAPES: tuple[Shape, ...] = ("instantaneous", "gradual", "cyclic")
SHIFTS = (0.25, 0.5, 1.0)
"""Of a mean, in standard deviations."""
HORIZON, CHANGE = 10_000, 2_000
"""Values of a planted stream, and the row from which it moves."""
WINDOW = 200
"""Rows of the windows in which a stream is cut for detectors that compare windows."""
RAMP = 2_000
"""Rows over which a gradual change comes, and of a cycle."""


@dataclass(frozen=True, slots=True, eq=False)
class Stream:
    """Values with a reference before them, and where they change."""

    name: str
    reference: Floats
    values: Floats
    changes: tuple[int, ...] = ()
    """Rows of `values` at which something changes; none: every alarm is false."""


def planted(shape: Shape, size: float, rows: int, at: int, rng: np.random.Generator) -> Floats:
    """Return normal values whose mean moves by `size` standard deviations from row `at` on."""
    since = np.arange(rows) - at
    moves = {
        "instantaneous": np.ones(rows),
        "gradual": np.clip(since / RAMP, 0, 1),
        "cyclic": np.sin(2 * np.pi * since / RAMP),
    }[shape]
    return rng.normal(size=rows) + size * np.where(since >= 0, moves, 0.0)


def streams(shape: Shape, size: float, count: int) -> Iterator[Stream]:
    """Yield planted streams with a reference of 2,000 values each."""
    for seed in range(count):
        rng = np.random.default_rng(seed)
        values = planted(shape, size, HORIZON, CHANGE, rng)
        yield Stream("", rng.normal(size=2_000), values, (CHANGE,))


def real(data: Path) -> Iterator[Stream]:
    """Yield the errors of a classifier along real and published streams, and two measured values.

    A decision tree learns the first 5,000 rows; its errors on the next 5,000 are the reference.
    """
    folder = data / "streams"
    yield _errors("sea_stream (no drift)", folder / "sea_stream.csv.gz", ())
    changes = (15_000, 30_000, 45_000)
    yield _errors("sea_drift_generated", folder / "sea_drift_generated.csv.gz", changes)
    # The market was widened at row 17,424: prices of Victoria begin to vary then.
    yield _errors("elec2, errors", folder / "elec2.csv.gz", (17_424,))
    table = read(folder / "elec2.csv.gz")
    for column in ("vicprice", "nswdemand"):
        values = table[column]
        change = (17_424 - 5_000,) if column == "vicprice" else ()
        yield Stream(f"elec2, {column}", values[:5_000], values[5_000:], change)


def read(path: Path) -> dict[str, Floats]:
    """Return the columns of a gzipped CSV file of numbers."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        names = lines.readline().strip().split(",")
        table = np.loadtxt(lines, delimiter=",", ndmin=2)
    return dict(zip(names, table.T, strict=True))


def _errors(name: str, path: Path, changes: tuple[int, ...]) -> Stream:
    table = read(path)
    target = table.pop("class")
    features = np.stack(list(table.values()), axis=1)
    # A kind of model that has nothing to do with what is measured.
    trees: Any = importlib.import_module("sklearn.tree")
    tree = trees.DecisionTreeClassifier(min_samples_leaf=20, random_state=0)
    tree.fit(features[:5_000], target[:5_000])
    wrong = (tree.predict(features) != target).astype(np.float64)
    kept = tuple(change - 10_000 for change in changes)
    return Stream(name, wrong[5_000:10_000], wrong[10_000:], kept)

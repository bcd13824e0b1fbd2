"""Permutation importance: what the figure loses when a column is shuffled, by whole raw columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from training.tabular import fitting, scoring
from training.tabular.table import Table

REPEATS = 5
MAX_ROWS = 5_000


@dataclass(frozen=True, slots=True)
class Importance:
    """How much a column matters to a trained model."""

    column: str
    loss: float
    """Of the metric, in its unit; below 0 where shuffling helped, which is chance."""
    spread: float
    """The standard deviation over the shufflings."""


def measure(
    pipeline: Any, table: Table, metric: str, *, seed: int, repeats: int = REPEATS
) -> list[Importance]:
    """Return the importance of each column on rows held out, the largest first.

    Columns that say the same share their importance: each alone can seem to matter little. After
    Breiman (2001), "Random forests", section 10.
    """
    polars_rows = min(len(table), MAX_ROWS)
    draw = np.random.default_rng(seed)
    some = table.take(np.sort(draw.permutation(len(table))[:polars_rows]))

    def figure(features: Any) -> float:
        said = fitting.ask(pipeline, features, some.classes)
        return scoring.score(metric, some.truth, said, some.weights)

    whole = figure(some.features)
    found = []
    for name in some.features.columns:
        values = some.features[name]
        lost = []
        for _ in range(repeats):
            shuffled = values.gather(draw.permutation(len(some)))
            changed = some.features.with_columns(shuffled.alias(name))
            lost.append(scoring.gain(metric, whole, figure(changed)))
        found.append(Importance(name, float(np.mean(lost)), float(np.std(lost))))
    return sorted(found, key=lambda each: -each.loss)

"""Columns of a table as vectors, so that detectors see them together and not one by one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from monitoring.columns import Column, Floats
from monitoring.drift import _cells
from monitoring.windows import Window

MOST_CATEGORIES = 20
"""Categories of a column that have a dimension of their own; the most frequent in both windows."""
ROWS = 50_000
"""Rows that are read of each window at most, evenly over its length."""


def together(reference: Window, window: Window, names: Sequence[str]) -> tuple[Column, Column]:
    """Return the columns of two windows as vectors of the same dimensions.

    Numbers are as they are, missing ones their pooled mean with a dimension that says so;
    categories are 0 or 1. Columns that the windows cannot share are left out.
    """
    first, second = thinned(reference), thinned(window)
    labels: list[str] = []
    parts: list[tuple[Floats, Floats]] = []
    for name in names:
        before, now = first.column(name), second.column(name)
        if before.kind != now.kind:
            continue
        for label, pair in _dimensions(name, before, now):
            labels.append(label)
            parts.append(pair)
    stacked = (
        np.stack([pair[side] for pair in parts], axis=1) if parts else np.empty((rows, 0))
        for side, rows in ((0, first.rows), (1, second.rows))
    )
    left, right = (Column("vectors", data, tuple(labels)) for data in stacked)
    return left, right


def thinned(window: Window) -> Window:
    """Return the window, or `ROWS` of its rows evenly spread where it has more."""
    if window.rows <= ROWS:
        return window
    return window.take(np.arange(ROWS) * window.rows // ROWS)


def _dimensions(name: str, before: Column, now: Column) -> list[tuple[str, tuple[Floats, Floats]]]:
    found: list[tuple[str, tuple[Floats, Floats]]] = []
    missing = [column.is_missing().astype(np.float64) for column in (before, now)]
    if before.kind == "numbers":
        present = np.concatenate([before.present, now.present])
        middle = float(present.mean()) if present.size else 0.0
        filled = [np.where(np.isnan(c.data), middle, c.data) for c in (before, now)]
        found.append((name, (filled[0], filled[1])))
    elif before.kind == "categories":
        for label in _cells.of_categories(before, now).labels[:MOST_CATEGORIES]:
            hits = [_is(column, label) for column in (before, now)]
            found.append((f"{name}={label}", (hits[0], hits[1])))
    else:
        return found
    if missing[0].any() or missing[1].any():
        found.append((f"{name} (missing)", (missing[0], missing[1])))
    return found


def _is(column: Column, label: str) -> Floats:
    if label not in column.labels:
        return np.zeros(len(column))
    found: Floats = (column.data == column.labels.index(label)).astype(np.float64)
    return found

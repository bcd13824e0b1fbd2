"""Says which categories moved: the shares of rows before and now, new and lost ones by name."""

from __future__ import annotations

import numpy as np

from monitoring.drift._cells import Cells
from monitoring.findings import Cause

MOST = 5
_LONGEST = 60
"""Characters of a category that are quoted."""


def causes(cells: Cells) -> tuple[Cause, ...]:
    """Return the cells that moved most, each with the change of its share of rows."""
    change = _change(cells)
    order = np.argsort(-np.abs(change), kind="stable")[:MOST]
    return tuple(Cause(_name(cells, place), float(change[place])) for place in order)


def explain(cells: Cells) -> str:
    """Return the largest change in words, and what is new or gone."""
    change = _change(cells)
    place = int(np.abs(change).argmax())
    before, now = (c[place] / c.sum() for c in (cells.reference, cells.current))
    words = f"{_name(cells, place)!r} is {now:.1%} of the window, {before:.1%} of the reference"
    if not cells.labels:
        return words
    new = np.flatnonzero(cells.reference == 0)
    gone = np.flatnonzero(cells.current == 0)
    for what, places in (("new", new), ("gone", gone)):
        if places.size:
            named = ", ".join(repr(_name(cells, place)) for place in places[:3])
            more = f" and {places.size - 3} more" if places.size > 3 else ""
            words += f"; {what}: {named}{more}"
    return words


def _change(cells: Cells) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    change: np.ndarray[tuple[int], np.dtype[np.float64]] = (
        cells.current / cells.current.sum() - cells.reference / cells.reference.sum()
    )
    return change


def _name(cells: Cells, place: int) -> str:
    if cells.labels:
        return cells.labels[place][:_LONGEST]
    return f"cell {place + 1} of {cells.reference.size}"

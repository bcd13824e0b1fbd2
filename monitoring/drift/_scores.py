"""Places of new values among those of a reference: a fixed rule, whatever the stream brings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from monitoring.columns import Column, Floats

CELLS = 1_024


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """Turns values into cells by their order: of numbers by size, of categories by rarity."""

    edges: Floats
    """Of numbers, rising."""
    places: dict[str, int]
    """Of categories; the commonest of the reference first."""

    @property
    def cells(self) -> int:
        return len(self.places) + 1 if self.places else self.edges.size + 1

    def cells_of(self, column: Column) -> npt.NDArray[np.int64]:
        """Return the cell of each present value; an unknown category is in the last one."""
        if not self.places:
            found = np.searchsorted(self.edges, column.present, side="left")
            return found.astype(np.int64)
        last = len(self.places)
        table = np.array([self.places.get(label, last) for label in column.labels], dtype=np.int64)
        return table[column.present] if table.size else np.zeros(0, dtype=np.int64)


def grid(column: Column, places: npt.NDArray[np.int64] | None = None) -> Grid:
    """Return the grid of a column's present values, or of some of them."""
    values = column.present if places is None else column.present[places]
    if column.kind == "categories":
        counts = np.bincount(values, minlength=len(column.labels))
        order = np.argsort(-counts, kind="stable")
        named = [column.labels[code] for code in order if counts[code]]
        return Grid(np.empty(0), {label: place for place, label in enumerate(named)})
    distinct = np.unique(values)
    if distinct.size > CELLS:
        ordered = np.sort(values)
        steps = np.arange(1, CELLS) * ordered.size // CELLS
        distinct = np.unique(ordered[steps])
    return Grid(distinct.astype(np.float64), {})


def middle_ranks(found: Grid, column: Column) -> Floats:
    """Return the mean rank of each cell among a column's values, between 0 and 1, (cells,)."""
    counts = np.bincount(found.cells_of(column), minlength=found.cells)
    ranks: Floats = (np.cumsum(counts) - counts / 2) / max(1, counts.sum())
    return ranks

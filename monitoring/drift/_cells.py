"""Two columns counted into the same cells, which depend on both windows alike, and on no label."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from monitoring.columns import Column, Floats

Counts: TypeAlias = npt.NDArray[np.int64]

FINE = 512
"""Cells of numbers; where there are fewer distinct values, each has its own and nothing is lost."""
EDGE_SAMPLE = 65_536
"""Values that the edges of cells are found from, drawn from both windows together."""
MOST_CATEGORIES = 1_000
REST = "all others"


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """How many values of each window fall into each cell; memory does not grow with rows."""

    reference: Counts
    """Shape (cells,)."""
    current: Counts
    positions: Floats | None = None
    """The mean of all values in a cell, rising; None for categories."""
    labels: tuple[str, ...] = ()

    @property
    def pooled(self) -> Counts:
        total: Counts = self.reference + self.current
        return total

    def coarser(self, cells: int) -> Cells:
        """Return neighbours put together into cells of about equal pooled count."""
        pooled = self.pooled
        middle = np.cumsum(pooled) - pooled / 2
        group = np.unique((middle * cells // max(1, pooled.sum())), return_inverse=True)[1]
        starts = np.flatnonzero(np.diff(group, prepend=-1))
        return Cells(np.add.reduceat(self.reference, starts), np.add.reduceat(self.current, starts))


def of_columns(reference: Column, current: Column, *, seed: int, fine: int = FINE) -> Cells:
    """Count two columns of one kind, numbers or categories, into common cells."""
    if reference.kind == "categories":
        return of_categories(reference, current)
    return of_numbers(reference.present, current.present, seed=seed, fine=fine)


def of_numbers(reference: Floats, current: Floats, *, seed: int, fine: int = FINE) -> Cells:
    """Count numbers into cells between quantiles of both windows together.

    The quantiles lie denser towards the ends, as in a t-digest (Dunning 2019, scale function k1),
    so that what happens in a tail is seen.
    """
    edges = _edges(reference, current, seed=seed, fine=fine)
    counts, sums = [], np.zeros(edges.size + 1)
    for values in (reference, current):
        place = np.searchsorted(edges, values, side="left")
        counts.append(np.bincount(place, minlength=edges.size + 1))
        sums += np.bincount(place, weights=values, minlength=edges.size + 1)
    pooled = counts[0] + counts[1]
    held = pooled > 0
    return Cells(counts[0][held], counts[1][held], sums[held] / pooled[held])


def of_categories(reference: Column, current: Column) -> Cells:
    """Count categories; beyond `MOST_CATEGORIES` the rarest of both windows together are one.

    Those that are equally rare stay together: which of them is kept must not depend on the window
    that it was seen in first, or a column of ids would always drift.
    """
    names = dict.fromkeys((*reference.labels, *current.labels))
    place = {name: number for number, name in enumerate(names)}
    both = []
    for column in (reference, current):
        target = np.array([place[label] for label in column.labels], dtype=np.int64)
        codes = np.bincount(column.present, minlength=len(column.labels))
        counts = np.zeros(len(names), dtype=np.int64)
        np.add.at(counts, target, codes)
        both.append(counts)
    pooled = both[0] + both[1]
    order = np.argsort(-pooled, kind="stable")
    order = order[pooled[order] > 0]
    fewest = pooled[order[MOST_CATEGORIES]] if order.size > MOST_CATEGORIES else 0
    kept, rest = order[pooled[order] > fewest], order[pooled[order] <= fewest]
    labels = [str(name) for name in np.array([*names], dtype=object)[kept]]
    first, second = (counts[kept] for counts in both)
    if rest.size:
        first = np.append(first, both[0][rest].sum())
        second = np.append(second, both[1][rest].sum())
        labels.append(REST)
    return Cells(first, second, labels=tuple(labels))


def _edges(reference: Floats, current: Floats, *, seed: int, fine: int) -> Floats:
    total = reference.size + current.size
    if total > EDGE_SAMPLE:
        # Drawn from both as if they were one: no edge may know which window a value came from.
        drawn = np.random.default_rng(seed).integers(total, size=EDGE_SAMPLE)
        first = drawn < reference.size
        pooled = np.concatenate([reference[drawn[first]], current[drawn[~first] - reference.size]])
    else:
        pooled = np.concatenate([reference, current])
    pooled.sort()
    distinct = pooled[np.flatnonzero(np.diff(pooled, prepend=-np.inf))]
    if distinct.size <= fine:
        return distinct[:-1]
    levels = (1 - np.cos(math.pi * np.arange(1, fine) / fine)) / 2
    return np.unique(pooled[(levels * (pooled.size - 1)).astype(np.int64)])

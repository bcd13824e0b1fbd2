"""How far the distribution of a column moved between two versions of a dataset."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from infra.datasets.moments import Floats
from infra.datasets.profile import STEPS, Column, Numbers, Profile

_Side = Literal["left", "right"]
Compared = Literal["values", "frequent values", "quantiles", "lengths", "nothing"]

FLOOR = 1e-4
"""The least share of a bin in the PSI, which has no value where a share is zero."""
_BINS = 10
_COVERED = 0.5
"""Share of the values that the frequent ones must make up to stand for the column."""
_LEVELS = np.arange(STEPS + 1) / STEPS


@dataclass(frozen=True, slots=True)
class Drift:
    """Distances between two distributions of one column; 0 is none.

    From the profiles, so no row is read. What quantiles give is within 0.01 of what all values
    would. All are `None` where there is nothing to compare.
    """

    column: str
    compared: Compared
    """`values`: all distinct values; `frequent values`: the others count as one; `quantiles`: in
    the bins between the deciles of the first; `lengths`: so, of texts that hardly repeat."""
    psi: float | None
    """Population stability index; above 0.1 some, above 0.25 much, as the field's rule of thumb."""
    total_variation: float | None
    """Half the sum of absolute differences of shares; between 0 and 1."""
    ks: float | None
    """Kolmogorov-Smirnov: the largest distance of the cumulative distributions; numbers only."""
    nulls_before: float
    """Share of the rows."""
    nulls_after: float


def drifts(before: Profile, after: Profile) -> tuple[Drift, ...]:
    """Return the drift of each column that both have."""
    columns = {column.name: column for column in after.columns}
    return tuple(
        _drift(column, columns[column.name], before.rows, after.rows)
        for column in before.columns
        if column.name in columns
    )


def psi(expected: Floats, actual: Floats) -> float:
    """Return the population stability index of two lists of shares: sum of (a - e) ln(a / e)."""
    e, a = np.maximum(expected, FLOOR), np.maximum(actual, FLOOR)
    return float(((a - e) * np.log(a / e)).sum())


def total_variation(first: Floats, second: Floats) -> float:
    """Return half the sum of absolute differences of two lists of shares."""
    return float(np.abs(first - second).sum() / 2)


def _drift(before: Column, after: Column, rows_before: int, rows_after: int) -> Drift:
    compared, distances = _distances(before, after)
    return Drift(
        before.name,
        compared,
        *distances,
        before.nulls / rows_before if rows_before else 0.0,
        after.nulls / rows_after if rows_after else 0.0,
    )


_Distances = tuple[float | None, float | None, float | None]
_NONE: _Distances = (None, None, None)


def _distances(before: Column, after: Column) -> tuple[Compared, _Distances]:
    if before.kind != after.kind:
        return "nothing", _NONE
    covered = min(_covered(before), _covered(after))
    if covered == 1 and before.top_error == after.top_error == 0:
        return "values", _of_values(before, after)
    if before.numbers and after.numbers:
        return "quantiles", _of_quantiles(before.numbers, after.numbers)
    if covered >= _COVERED:
        return "frequent values", _of_values(before, after)
    if before.lengths and after.lengths:
        return "lengths", _of_quantiles(before.lengths, after.lengths)
    return "nothing", _NONE


def _covered(column: Column) -> float:
    values = _total(column)
    return sum(top.count for top in column.top) / values if values else 0.0


def _total(column: Column) -> int:
    if column.numbers is not None:
        return column.numbers.count
    if column.lengths is not None:
        return column.lengths.count
    return sum(top.count for top in column.top)


def _of_values(before: Column, after: Column) -> _Distances:
    old = {top.value: top.count / _total(before) for top in before.top}
    new = {top.value: top.count / _total(after) for top in after.top}
    values = list(old.keys() | new.keys())
    first, second = (_with_rest(shares, values) for shares in (old, new))
    ks = None
    if before.kind == "number":
        values.sort()
        steps = (np.cumsum([shares.get(value, 0.0) for value in values]) for shares in (old, new))
        ks = float(np.abs(next(steps) - next(steps)).max())
    return psi(first, second), total_variation(first, second), ks


def _with_rest(shares: dict[object, float], values: Iterable[object]) -> Floats:
    known = [shares.get(value, 0.0) for value in values]
    return np.array([*known, max(0.0, 1 - math.fsum(known))])


def _of_quantiles(before: Numbers, after: Numbers) -> _Distances:
    inner = np.unique(before.quantiles[STEPS // _BINS : STEPS : STEPS // _BINS])
    first, second = (
        np.diff([0.0, *_cumulative(numbers, inner, side="right"), 1.0])
        for numbers in (before, after)
    )
    points = np.union1d(before.quantiles, after.quantiles)
    ks = max(
        float(
            np.abs(
                _cumulative(before, points, side=side) - _cumulative(after, points, side=side)
            ).max()
        )
        for side in ("left", "right")
    )
    return psi(first, second), total_variation(first, second), ks


def _cumulative(numbers: Numbers, points: Floats, *, side: _Side) -> Floats:
    """Return the share of values below (`left`) or up to (`right`) each point."""
    quantiles = np.asarray(numbers.quantiles)
    index = np.searchsorted(quantiles, points, side=side)
    low, high = np.clip(index - 1, 0, STEPS), np.clip(index, 0, STEPS)
    width = quantiles[high] - quantiles[low]
    inside = np.where(width > 0, (points - quantiles[low]) / np.where(width > 0, width, 1), 0.0)
    between = _LEVELS[low] + inside * (_LEVELS[high] - _LEVELS[low])
    return np.where(index == 0, 0.0, np.where(index > STEPS, 1.0, between))

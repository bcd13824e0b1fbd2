"""Divides rows: what is held out to measure on, and the folds in which trials are compared."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from infra.errors import InvalidRequest, NotFound, first_line
from infra.plugins import require
from training.tabular.specification import Classical
from training.tabular.table import Table

if TYPE_CHECKING:
    import polars as pl

FEWEST = 10
"""Rows on either side; figures of fewer say nothing."""
Places = NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Places of rows."""

    train: Places
    test: Places


def hold_out(frame: pl.DataFrame, spec: Classical) -> Split:
    """Divide rows into those to learn from and those to measure on.

    By time, the latest are held out, and rows of one time stay together. By group, whole groups
    are. Rows to learn from come in the order of time, where there is one.

    Raises:
        NotFound: the column of times or groups does not exist.
        InvalidRequest: a side would have too few rows, or a time is missing.
    """
    method, share = spec.method, spec.split.test
    if method == "time":
        split = _by_time(frame, str(spec.data.time), share, gap=spec.split.gap)
    elif method == "group":
        split = _by_group(_column(frame, str(spec.data.group)), share, seed=spec.seed)
    else:
        labels = frame[spec.data.target].to_list() if method == "stratified" else [0] * len(frame)
        split = _at_random(labels, share, seed=spec.seed)
    for name, places in (("learn from", split.train), ("measure on", split.test)):
        if len(places) < FEWEST:
            raise InvalidRequest(
                f"{len(places)} of {len(frame)} rows would be left to {name}; at least {FEWEST} "
                "are needed"
            )
    return split


def in_order(frame: pl.DataFrame, time: str | None) -> Places:
    """Return the places of all rows, by time where there is one.

    Raises:
        InvalidRequest: a time is missing.
    """
    if time is None:
        return np.arange(len(frame), dtype=np.intp)
    times = _column(frame, time)
    if times.null_count():
        raise InvalidRequest(
            f"{times.null_count()} rows have no {time!r}, by which they are ordered"
        )
    return np.asarray(times.arg_sort().to_numpy(), dtype=np.intp)


def folds(
    table: Table, spec: Classical, *, count: int | None = None
) -> list[tuple[Places, Places]]:
    """Return pairs of what to learn from and what to measure on, within rows that are learned from.

    By time, each fold is later than all that it is measured by, and rows of one time stay together;
    rows must be in that order.

    Args:
        table: rows that are learned from.
        spec: how they are divided.
        count: of folds; by default as the specification says.

    Raises:
        InvalidRequest: there are too few rows, groups or times for so many folds.
    """
    selection = require("sklearn.model_selection", extra="classical")
    count, seed = count or spec.split.folds, spec.seed
    if spec.method == "time" and table.times is not None:
        return _later(table.times, count, gap=spec.split.gap)
    kinds = {"group": "GroupKFold", "stratified": "StratifiedKFold"}
    kind = kinds.get(spec.method, "KFold")
    if spec.method == "group" and spec.task == "classification":
        kind = "StratifiedGroupKFold"
    cut = getattr(selection, kind)(n_splits=count, shuffle=True, random_state=seed)
    try:
        found = list(cut.split(np.zeros((len(table), 1)), table.truth, table.groups))
    except ValueError as error:
        raise InvalidRequest(f"split.folds: {first_line(error)}") from error
    if not all(len(train) and len(test) for train, test in found):
        raise InvalidRequest(f"split.folds: {len(table)} rows do not make up {count} folds")
    return [(train.astype(np.intp), test.astype(np.intp)) for train, test in found]


def _later(times: NDArray[Any], count: int, *, gap: int) -> list[tuple[Places, Places]]:
    """Return folds of equal size, but that each begins with the first row of its time."""
    rows = len(times)
    size = rows // (count + 1)
    begins = np.flatnonzero(np.concatenate([[True], times[1:] != times[:-1]]))
    wanted = rows - size * np.arange(count, 0, -1)
    cuts = begins[np.searchsorted(begins, wanted, side="right") - 1].tolist()
    found = [
        (np.arange(max(0, cut - gap)), np.arange(cut, end))
        for cut, end in itertools.pairwise([*cuts, rows])
    ]
    if not size or not all(len(train) and len(test) for train, test in found):
        raise InvalidRequest(
            f"{rows} rows of {len(begins)} different times cannot be divided into {count} folds "
            f"with a gap of {gap}; give more of them or fewer folds"
        )
    return found


def _by_time(frame: pl.DataFrame, time: str, share: float, *, gap: int) -> Split:
    order = in_order(frame, time)
    times = frame[time].gather(order)
    first = len(order) - max(1, round(len(order) * share))
    # All rows of the time at which the cut falls are measured on.
    while first > 0 and times[first - 1] == times[first]:
        first -= 1
    return Split(order[: max(0, first - gap)], order[first:])


def _by_group(groups: pl.Series, share: float, *, seed: int) -> Split:
    values = groups.to_list()
    names = list(dict.fromkeys(values))
    np.random.default_rng(seed).shuffle(names)
    held: set[Any] = set()
    sizes: dict[Any, int] = {}
    for value in values:
        sizes[value] = sizes.get(value, 0) + 1
    wanted, have = share * len(values), 0
    for name in names:
        if have >= wanted:
            break
        held.add(name)
        have += sizes[name]
    mask = np.array([value in held for value in values], dtype=bool)
    return Split(np.flatnonzero(~mask), np.flatnonzero(mask))


def _at_random(labels: Sequence[Any], share: float, *, seed: int) -> Split:
    """Hold out the share of each label, so that both sides have the same mixture."""
    draw = np.random.default_rng(seed)
    places: dict[Any, list[int]] = {}
    for place, label in enumerate(labels):
        places.setdefault(label, []).append(place)
    mask = np.zeros(len(labels), dtype=bool)
    for mine in places.values():
        count = round(len(mine) * share)
        mask[draw.permutation(np.array(mine))[:count]] = True
    return Split(np.flatnonzero(~mask), np.flatnonzero(mask))


def _column(frame: pl.DataFrame, name: str) -> pl.Series:
    if name not in frame.columns:
        raise NotFound("column", name, among=frame.columns)
    return frame[name]

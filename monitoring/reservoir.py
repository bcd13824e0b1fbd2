"""A uniform sample of bounded size of a stream of rows; two of them merge into one of both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from infra.errors import InvalidRequest


class Reservoir:
    """Keeps the rows with the smallest of random keys; memory is bounded by `size`.

    Every row seen is kept with the same probability, in whatever order and batches they come
    (bottom-k sampling; Cohen & Kaplan, PODC 2007).
    """

    def __init__(self, size: int, *, seed: int) -> None:
        if size < 1:
            raise InvalidRequest(f"A sample cannot have {size!r} rows; give at least 1")
        self.size = size
        self.seen = 0
        self._rng = np.random.default_rng(seed)
        self._keys: npt.NDArray[np.float64] = np.empty(0)
        self._order: npt.NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._columns: dict[str, npt.NDArray[Any]] = {}

    def add(self, columns: Mapping[str, npt.ArrayLike]) -> None:
        """Take rows in: arrays of one length, by column; every call has the same columns."""
        batch = {name: np.asarray(values) for name, values in columns.items()}
        rows = len(next(iter(batch.values()), ()))
        if self._columns and batch.keys() != self._columns.keys():
            raise InvalidRequest(
                f"These rows have the columns {sorted(batch)!r}, those before had "
                f"{sorted(self._columns)!r}"
            )
        order = np.arange(self.seen, self.seen + rows)
        self.seen += rows
        self._keep(self._rng.random(rows), order, batch)

    def merge(self, other: Reservoir) -> None:
        """Take in what another sample kept of other rows; neither saw a row of the other."""
        seen = self.seen
        self.seen += other.seen
        if other._columns:
            self._keep(other._keys, other._order + seen, other._columns)

    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """Return the sample, rows in the order in which they came."""
        order = np.argsort(self._order, kind="stable")
        return {name: values[order] for name, values in self._columns.items()}

    def _keep(
        self,
        keys: npt.NDArray[np.float64],
        order: npt.NDArray[np.int64],
        batch: Mapping[str, npt.NDArray[Any]],
    ) -> None:
        keys = np.concatenate([self._keys, keys])
        kept = np.arange(keys.size)
        if keys.size > self.size:
            kept = np.argpartition(keys, self.size - 1)[: self.size]
        self._keys, self._order = keys[kept], np.concatenate([self._order, order])[kept]
        before = self._columns or {name: values[:0] for name, values in batch.items()}
        self._columns = {
            name: np.concatenate([before[name], values])[kept] for name, values in batch.items()
        }

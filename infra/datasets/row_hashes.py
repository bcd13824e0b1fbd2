"""Hashes of rows, kept on disk in parts by hash, so that two datasets compare in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from tempfile import SpooledTemporaryFile
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from infra.datasets.distinct import Hashes
from infra.plugins import require

if TYPE_CHECKING:
    import pyarrow as pa

PART_BYTES = 8 << 20
"""What is compared at once."""
MAX_PARTS = 256
_IN_MEMORY_BYTES = 256 << 10
_NULL = np.uint64(0x9E3779B97F4A7C15)
_PRIME = np.uint64(0x100000001B3)


class RowHashes:
    """One record for each row: hash of its key, its number, then a hash for each column.

    Rows that differ here differ; two that differ have one hash in 2**64 pairs.
    """

    def __init__(self, files: Sequence[Any], key: Sequence[str], columns: Sequence[str]) -> None:
        self._files = files
        self._key = key
        self._columns = columns
        self.rows = 0

    @classmethod
    @contextmanager
    def opened(
        cls, parts: int, *, key: Sequence[str], columns: Sequence[str]
    ) -> Iterator[RowHashes]:
        """Keep records in `parts` temporary files, which the end of the block removes."""
        with ExitStack() as stack:
            files = [
                stack.enter_context(SpooledTemporaryFile(_IN_MEMORY_BYTES)) for _ in range(parts)
            ]
            yield cls(files, key, columns)

    def fill(self, batches: Iterable[pa.RecordBatch]) -> None:
        """Take all rows."""
        for batch in batches:
            records = _records(batch, self._key, self._columns, first=self.rows)
            self.rows += len(records)
            parts = (records[:, 0] >> np.uint64(32)) % np.uint64(len(self._files))
            order = np.argsort(parts, kind="stable")
            bounds = np.searchsorted(parts[order], np.arange(len(self._files) + 1, dtype=np.uint64))
            for part in np.flatnonzero(np.diff(bounds)):
                chosen = order[bounds[part] : bounds[part + 1]]
                self._files[part].write(records[chosen].tobytes())

    def read(self) -> Iterator[Hashes]:
        """Return the records of each part, sorted by key and then by number."""
        for file in self._files:
            file.seek(0)
            records = np.frombuffer(file.read(), np.uint64).reshape(-1, 2 + len(self._columns))
            yield records[np.lexsort((records[:, 1], records[:, 0]))]


def parts_for(rows: int, columns: int) -> int:
    """Return into how many parts to divide the hashes of `rows` rows."""
    return int(min(MAX_PARTS, 1 + rows * (columns + 2) * 8 // PART_BYTES))


def _records(
    batch: pa.RecordBatch, key: Sequence[str], columns: Sequence[str], *, first: int
) -> NDArray[np.uint64]:
    records = np.empty((batch.num_rows, 2 + len(columns)), np.uint64)
    hashes = {name: _hash(batch.column(name)) for name in {*key, *columns}}
    keys = np.zeros(batch.num_rows, np.uint64)
    for name in key:
        keys = (keys ^ hashes[name]) * _PRIME
        keys ^= keys >> np.uint64(29)
    records[:, 0] = keys
    records[:, 1] = np.arange(first, first + batch.num_rows, dtype=np.uint64)
    for position, name in enumerate(columns, 2):
        records[:, position] = hashes[name]
    return records


def _hash(array: Any) -> Hashes:
    pl = require("polars", extra="data")
    series = pl.from_arrow(array)
    hashes = np.array(series.hash().to_numpy(), np.uint64)
    if array.null_count:
        # Polars hashes nothing as it hashes false.
        hashes[series.is_null().to_numpy()] = _NULL
    return hashes

"""Compares the rows of two datasets by their hashes, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from infra.datasets.difference import Changed, Examples, Rows
from infra.datasets.distinct import Hashes
from infra.datasets.plain import to_rows
from infra.datasets.row_hashes import RowHashes, parts_for
from infra.errors import InvalidRequest
from infra.plugins import require

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(slots=True)
class Found:
    """Numbers of the first rows of each sort."""

    limit: int
    added: list[int] = field(default_factory=list)
    removed: list[int] = field(default_factory=list)
    changed: list[tuple[int, int]] = field(default_factory=list)

    def keep(self) -> None:
        """Forget all but the first."""
        self.added = sorted(self.added)[: self.limit]
        self.removed = sorted(self.removed)[: self.limit]
        self.changed = sorted(self.changed)[: self.limit]


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two datasets."""

    name: str
    rows: int
    batches: Callable[[], Iterator[pa.RecordBatch]]
    """Its rows, with the columns that are compared."""


def comparable(before: pa.Schema, after: pa.Schema) -> pa.Schema:
    """Return the columns that both have, with the types that hold the values of both."""
    pa = require("pyarrow", extra="data")
    columns = []
    for column in before:
        if column.name not in after.names:
            continue
        pair = [pa.schema([column]), pa.schema([after.field(column.name)])]
        with suppress(pa.ArrowException):
            columns += pa.unify_schemas(pair, promote_options="permissive")
    return pa.schema(columns)


def compare_rows(
    before: Side, after: Side, *, key: Sequence[str], columns: Sequence[str], found: Found
) -> Rows:
    """Count rows that differ in `columns`; memory is bounded, about 8 MiB of hashes at a time.

    The hashes of all rows lie in temporary files meanwhile: 16 bytes for each row, and with a key
    8 more for each column. Beyond about 2 GiB of them the memory grows with the rows.

    Raises:
        InvalidRequest: a key occurs twice in one of the datasets.
    """
    if not columns:
        return Rows(added=after.rows, removed=before.rows)
    keys, others = (key, [name for name in columns if name not in key]) if key else (columns, [])
    parts = parts_for(max(before.rows, after.rows), len(others))
    with (
        RowHashes.opened(parts, key=keys, columns=others) as old,
        RowHashes.opened(parts, key=keys, columns=others) as new,
    ):
        old.fill(before.batches())
        new.fill(after.batches())
        pairs = zip(old.read(), new.read(), strict=True)
        if not key:
            return _count_equal(pairs, found)
        return _count_by_key(pairs, others, found, (before.name, after.name))


def read_examples(before: Side, after: Side, found: Found) -> Examples:
    """Read the rows whose numbers were found."""
    old = _pick(before, {*found.removed, *(pair[0] for pair in found.changed)})
    new = _pick(after, {*found.added, *(pair[1] for pair in found.changed)})
    return Examples(
        tuple(new[number] for number in found.added),
        tuple(old[number] for number in found.removed),
        tuple(Changed(old[first], new[second]) for first, second in found.changed),
    )


def _count_equal(pairs: Iterable[tuple[Hashes, Hashes]], found: Found) -> Rows:
    """Count rows as a bag: what one has three times and the other twice is one row more."""
    added = removed = unchanged = 0
    for old, new in pairs:
        more, less = _surplus(new, old), _surplus(old, new)
        added += len(more)
        removed += len(less)
        unchanged += len(new) - len(more)
        found.added += np.sort(more)[: found.limit].tolist()
        found.removed += np.sort(less)[: found.limit].tolist()
        found.keep()
    return Rows(added, removed, 0, unchanged)


def _surplus(these: Hashes, those: Hashes) -> Hashes:
    """Return the numbers of the rows that one has more often than the other, the last ones."""
    if not len(these):
        return np.empty(0, np.uint64)
    keys, starts, counts = np.unique(these[:, 0], return_index=True, return_counts=True)
    ranks = np.arange(len(these)) - np.repeat(starts, counts)
    there = np.searchsorted(those[:, 0], keys, side="right") - np.searchsorted(those[:, 0], keys)
    return np.asarray(these[ranks >= np.repeat(there, counts), 1], np.uint64)


def _count_by_key(
    pairs: Iterable[tuple[Hashes, Hashes]],
    columns: Sequence[str],
    found: Found,
    names: tuple[str, str],
) -> Rows:
    added = removed = changed = unchanged = 0
    differing = np.zeros(len(columns), np.int64)
    for old, new in pairs:
        for records, name in zip((old, new), names, strict=True):
            _check_unique(records, name)
        _, first, second = np.intersect1d(
            old[:, 0], new[:, 0], assume_unique=True, return_indices=True
        )
        unlike = old[first, 2:] != new[second, 2:]
        rows = unlike.any(axis=1)
        differing += unlike.sum(axis=0)
        changed += int(rows.sum())
        unchanged += int((~rows).sum())
        more = np.delete(new[:, 1], second)
        less = np.delete(old[:, 1], first)
        added += len(more)
        removed += len(less)
        found.added += np.sort(more)[: found.limit].tolist()
        found.removed += np.sort(less)[: found.limit].tolist()
        both = zip(old[first[rows], 1].tolist(), new[second[rows], 1].tolist(), strict=True)
        found.changed += sorted(both)[: found.limit]
        found.keep()
    counts = {name: int(count) for name, count in zip(columns, differing, strict=True) if count}
    return Rows(added, removed, changed, unchanged, counts)


def _check_unique(records: Hashes, name: str) -> None:
    twice = np.flatnonzero(records[1:, 0] == records[:-1, 0])
    if len(twice):
        first, second = sorted(records[twice[0] : twice[0] + 2, 1].tolist())
        raise InvalidRequest(
            f"The key does not tell rows of {name!r} apart: rows {first + 1} and {second + 1} have "
            "the same; add columns to it, or compare without a key",
            parameter="key",
        )


def _pick(side: Side, numbers: set[int]) -> dict[int, dict[str, Any]]:
    picked: dict[int, dict[str, Any]] = {}
    if not numbers:
        return picked
    first = 0
    for batch in side.batches():
        for number in numbers:
            if first <= number < first + batch.num_rows:
                picked[number] = to_rows(batch.slice(number - first, 1))[0]
        first += batch.num_rows
        if len(picked) == len(numbers):
            break
    return picked

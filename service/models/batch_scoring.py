"""Rows of a table to a model: read as its columns, checked first, predictions put beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from infra import classical
from infra.classical_rows import Values
from infra.errors import InvalidRequest
from infra.plugins import require
from infra.point_in_time import moments_of
from service.prediction.batching import checked
from service.prediction.columns import Reader

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

    from service.prediction.joining import Joins
    from service.prediction.loading import Loaded

EXTRA = "classical"
ADDED = ("prediction", "probability", "probabilities", "warnings")


def check_times(
    loaded: Loaded, read: Callable[..., Iterable[pa.RecordBatch]], names: Sequence[str]
) -> None:
    """Refuse rows without a time, where views are joined as of it, before any is predicted.

    A request without one is of the moment in which it is answered. Rows of a table are not: its
    parts are answered at other moments, and once more after a failure.

    Args:
        loaded: the model.
        read: returns the rows, of the columns that it is given.
        names: of the columns.

    Raises:
        InvalidRequest: the column is missing, or a row of it holds no time.
    """
    joins = loaded.reader.joins
    if joins is None:
        return
    time, first = joins.time, 0
    why = as_of(loaded, joins)
    if time not in names:
        raise InvalidRequest(f"The rows have no column {time!r}, {why}")
    for batch in read(columns=[time]):
        with _counted(batch.num_rows, first):
            values: Any = _values(time, batch.column(0), is_time=True)
            values = values.tolist() if isinstance(values, np.ndarray) else values
            moments = moments_of(values, source=f"The column {time!r}").microseconds
            if None in moments:
                raise InvalidRequest(f"Row {moments.index(None)} has no time in {time!r}, {why}")
        first += batch.num_rows


def as_of(loaded: Loaded, joins: Joins) -> str:
    """Say what the times of rows are for, as messages have it."""
    return f"as of which {loaded.reference} joins {joins.views[0].view.followed}"


def scored(loaded: Loaded, batch: pa.RecordBatch, *, first: int = 0) -> pa.Table:
    """Return a batch with its predictions beside it.

    Raises:
        InvalidRequest: a column is missing, or holds what the model's cannot; rows are counted
            from `first` in the message.
    """
    pa = require("pyarrow", extra=EXTRA)
    taken = [name for name in ADDED if name in batch.schema.names]
    if taken:
        raise InvalidRequest(f"The rows have a column {taken[0]!r} already; rename it")
    model, reader = loaded.model, _sized(loaded.reader, batch.num_rows)
    time = None if reader.joins is None else reader.joins.time
    with _counted(batch.num_rows, first):
        given = {
            each.name: _values(each.name, batch.column(each.name), is_time=each.name == time)
            for each in reader.asked
            if each.name in batch.schema.names
        }
        table = reader.of_values(batch.num_rows, given)
    values = checked(loaded.runtime.run, table.columns, table.rows)
    found = pa.Table.from_batches([batch])
    if model.classes is None or loaded.labels is None:
        found = found.append_column("prediction", pa.array(values.astype(np.float64)))
    else:
        chosen = classical.decide(values, model)
        best = values[np.arange(len(values)), chosen].astype(np.float64)
        rows = pa.array(values.astype(np.float64).tolist(), pa.list_(pa.float64()))
        found = found.append_column("prediction", pa.array(loaded.labels[chosen].tolist()))
        found = found.append_column("probability", pa.array(best))
        found = found.append_column("probabilities", rows)
    warnings = np.zeros(table.rows, np.int32)
    for each in table.warnings:
        warnings[each.row] += 1
    return found.append_column("warnings", pa.array(warnings))


def _sized(reader: Reader, rows: int) -> Reader:
    """Return a reader that takes so many rows."""
    return Reader(reader.model, max(1, rows), reader.refuses_unknown, reader.joins)


def _values(name: str, column: pa.Array, *, is_time: bool) -> Values | pl.Series:
    pa = require("pyarrow", extra=EXTRA)
    kind = column.type
    if is_time and (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
        moments: pl.Series = require("polars", extra=EXTRA).from_arrow(column)
        return moments
    is_number = pa.types.is_floating(kind) or pa.types.is_integer(kind)
    if is_number and (pa.types.is_floating(kind) or not column.null_count):
        array: Values = column.to_numpy(zero_copy_only=False)
        return array
    if pa.types.is_temporal(kind) and column.null_count < len(column):
        raise InvalidRequest(f"{name!r} holds {kind}, which no column of a model is")
    values: Values = column.to_pylist()
    return values


@contextmanager
def _counted(rows: int, first: int) -> Iterator[None]:
    """Have a refusal say from where its rows are counted."""
    try:
        yield
    except InvalidRequest as error:
        raise InvalidRequest(f"In the {rows:,} rows from {first:,} on: {error}") from error

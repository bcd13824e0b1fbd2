"""Windows: tables of a reference or of a stretch of traffic, whole, by slice or by hours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from infra.errors import InvalidRequest, NotFound
from infra.plugins import require
from monitoring.columns import EXTRA, Column, Floats, Kind

_HOUR = 3_600.0
HOURS_OF_WEEK = 168
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """A table whose columns are read one by one, so that memory holds one of them."""

    names: tuple[str, ...]
    rows: int
    read: Callable[[str], Any]
    """Returns the raw values of a column, (rows,) or (rows, dimension)."""
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    """Of columns whose type does not tell, such as categories that are numbers."""
    start: datetime | None = None
    end: datetime | None = None
    set_aside: int = 0
    """Rows that came in it, whose clock cannot be right: later than now."""

    @classmethod
    def of(cls, columns: Any, *, kinds: Mapping[str, Kind] | None = None) -> Window:
        """Return a window of a mapping of arrays, an Arrow table or a data frame of polars.

        Raises:
            InvalidRequest: the columns are of different lengths.
        """
        if hasattr(columns, "to_arrow"):
            columns = columns.to_arrow()
        if hasattr(columns, "column_names"):
            names, table = tuple(columns.column_names), columns
            return cls(names, int(table.num_rows), lambda name: table.column(name), kinds or {})
        lengths = {name: len(values) for name, values in columns.items()}
        if len(set(lengths.values())) > 1:
            raise InvalidRequest(f"The columns are of different lengths: {lengths!r}")
        held = dict(columns)
        rows = next(iter(lengths.values()), 0)
        return cls(tuple(held), rows, held.__getitem__, kinds or {})

    @classmethod
    def of_parquet(cls, path: Path, *, kinds: Mapping[str, Kind] | None = None) -> Window:
        """Return a window of a Parquet file, of which a column is in memory while it is used."""
        parquet = require("pyarrow.parquet", extra=EXTRA)
        file = parquet.ParquetFile(path)
        names, rows = tuple(file.schema_arrow.names), int(file.metadata.num_rows)

        def read(name: str) -> Any:
            return parquet.read_table(path, columns=[name], memory_map=True).column(name)

        return cls(names, rows, read, kinds or {})

    def column(self, name: str) -> Column:
        """Read one column.

        Raises:
            NotFound: the window has no such column.
        """
        if name not in self.names:
            raise NotFound("column", name, among=self.names)
        return Column.of(self.read(name), self.kinds.get(name))

    def only(self, names: Sequence[str]) -> Window:
        """Return the window with some columns, those of them that it has."""
        return replace(self, names=tuple(name for name in names if name in self.names))

    def beside(self, other: Window) -> Window:
        """Return the window with the columns of another one of the same rows, too.

        Raises:
            InvalidRequest: the other one has another number of rows.
        """
        if other.rows != self.rows:
            raise InvalidRequest(f"{other.rows} rows cannot stand beside {self.rows}")
        source = self.read

        def read(name: str) -> Any:
            return other.read(name) if name in other.names else source(name)

        names = (*(name for name in self.names if name not in other.names), *other.names)
        return replace(self, names=names, read=read, kinds={**self.kinds, **other.kinds})

    def take(self, rows: npt.NDArray[Any]) -> Window:
        """Return the window of some rows: a mask of shape (rows,), or positions."""
        places = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
        source = self.read

        def read(name: str) -> Any:
            values = source(name)
            if isinstance(values, np.ndarray):
                return values[places]
            if hasattr(values, "take"):
                return values.take(places)
            return [values[place] for place in places]

        return replace(self, rows=len(places), read=read)

    def slices(self, name: str, *, most: int) -> dict[str, Window]:
        """Return a window for each of the most frequent values of a column of categories."""
        column = self.column(name)
        if column.kind != "categories":
            raise InvalidRequest(
                f"{name!r} holds {column.kind}; slices are made by categories: give its kind"
            )
        counts = np.bincount(column.present, minlength=len(column.labels))
        order = np.argsort(-counts, kind="stable")[:most]
        return {
            column.labels[code]: self.take(column.data == code) for code in order if counts[code]
        }


def same_hours(
    reference: Window, times: str, window: Window, *, zone: tzinfo = UTC, margin: int = 0
) -> Window:
    """Return the rows of a reference from the hours of the week that a window covers.

    A shop at night is not a shop by day: this keeps the one from being drift from the other. An
    hour is that of `zone`, so that changes of the clock twice a year do not move it.

    Args:
        reference: with a column of times; it should hold several weeks.
        times: the name of that column.
        window: with a start and an end.
        zone: whose hours count.
        margin: hours before and after that count as the same.
    """
    if window.start is None or window.end is None:
        raise InvalidRequest("The window has no start and end; it is no stretch of time")
    hours = int(np.ceil((window.end - window.start).total_seconds() / _HOUR)) + 2 * margin
    begin = window.start - timedelta(hours=margin)
    wanted = {_hour_of_week(begin + timedelta(hours=n), zone) for n in range(hours)}
    if len(wanted) == HOURS_OF_WEEK:
        return reference
    seconds = seconds_of(reference, times)
    stamps = np.floor(seconds / _HOUR)
    known = np.unique(stamps[np.isfinite(stamps)])
    kept = [
        stamp
        for stamp in known
        if _hour_of_week(datetime.fromtimestamp(stamp * _HOUR, UTC), zone) in wanted
    ]
    return reference.take(np.isin(stamps, kept))


def seconds_of(window: Window, times: str) -> Floats:
    """Return a column of times in seconds of the Unix epoch, NaN where there is none."""
    column = window.column(times)
    if column.kind not in {"times", "numbers", "nothing"}:
        raise InvalidRequest(f"{times!r} holds {column.kind} and no times")
    seconds: Floats = np.asarray(column.data, dtype=np.float64)
    return seconds


def _hour_of_week(moment: datetime, zone: tzinfo) -> int:
    local = moment.astimezone(zone)
    return local.weekday() * 24 + local.hour

"""Point-in-time joins: to each row the latest values that were known at its time, none later."""

from __future__ import annotations

import re
import sys
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from infra.errors import InvalidRequest, NotFound
from infra.feature_views import FeatureView, KeyType
from infra.plugins import require

if TYPE_CHECKING:
    import polars as pl

EXTRA = "classical"
Why = Literal["unknown_key", "too_early", "too_old"]
_MICROSECONDS = 1_000_000
_UNITS = {"days": 86_400 * _MICROSECONDS, "ms": 1_000, "us": 1}
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - moments are compared as numbers
_FIRST, _LAST = (
    (each - _EPOCH) // timedelta(microseconds=1)
    for each in (datetime.min, datetime.max)  # noqa: DTZ901
)
_CUT = re.compile(r"[.,]\d{6}0*[1-9]")
"""Digits of a time beyond microseconds, which Python leaves out."""
_CUT_ZONE = re.compile(r"[+-][\d:]+[.,]\d+$")
"""A distance to UTC in parts of a second, of which it does the same."""
_LEAST_KEY, _LARGEST_KEY = -(2**63), 2**63 - 1
_MAX_SHOWN = 80
_KEY_BYTES = 130
"""About what a key takes in a dictionary, beside its text."""


@dataclass(frozen=True, slots=True)
class Moments:
    """Times of rows."""

    microseconds: Sequence[int | None]
    """Since 1970, in UTC where they have a zone; None where there is none."""
    is_zoned: bool | None
    """None where there is no time at all."""


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """Where the values of some rows are."""

    places: Sequence[int | None]
    """Of each row, in the index."""
    missed: Sequence[tuple[int, Why]]
    """Rows without values: none of the key, none known yet, or none that still holds."""


class Index:
    """The rows of a view by key and time; one row is found in logarithmic time, alone or not."""

    def __init__(self, view: FeatureView, frame: pl.DataFrame, *, source: str) -> None:
        """Sort a view's rows.

        Args:
            view: says which columns are what.
            frame: its rows, in any order.
            source: what they are called in messages.

        Raises:
            NotFound: a column does not exist.
            InvalidRequest: a key or a time is missing or of a strange type, or a key has two rows
                of one time.
        """
        self.source = source
        self._view = view
        for name in (view.key, view.time, *view.columns):
            if name not in frame.columns:
                raise NotFound(f"column of {source}", name, among=frame.columns)
        self.key_type = key_type(frame[view.key], source)
        keys, times = frame[view.key], frame[view.time]
        _refuse_missing(source, view, frame)
        if str(keys.dtype) == "UInt64":
            _refuse_large(keys.to_list(), f"{source}, row {{row}}: {view.key!r}")
        moments = moments_of(times, source=f"{source}, {view.time!r}", is_ceiling=True)
        self.is_zoned = bool(moments.is_zoned)
        self._sort(frame, keys, np.array(moments.microseconds, dtype=np.int64))
        self._lag = round(view.lag_seconds * _MICROSECONDS)
        self._ttl = None if view.ttl_seconds is None else round(view.ttl_seconds * _MICROSECONDS)
        self.size_bytes = self._size()
        """About how much memory it takes."""

    def __len__(self) -> int:
        return len(self._times)

    def find(self, keys: Sequence[Any], moments: Moments) -> Found:
        """Return where the values of rows are that were known at their times.

        Raises:
            InvalidRequest: a key is of another type, or one side has time zones alone.
        """
        self._check(keys, moments)
        places: list[int | None] = []
        missed: list[tuple[int, Why]] = []
        for row, (key, moment) in enumerate(zip(keys, moments.microseconds, strict=True)):
            if moment is None:
                raise InvalidRequest(f"Row {row} has no time, as of which {self.source} is joined")
            found = self._place(key, moment)
            if isinstance(found, str):
                missed.append((row, found))
                places.append(None)
            else:
                places.append(found)
        return Found(places, missed)

    def features(self, found: Found) -> pl.DataFrame:
        """Return the values of rows that were found, by their names in the model."""
        polars = require("polars", extra=EXTRA)
        places = polars.Series(found.places, dtype=polars.UInt32)
        chosen: pl.DataFrame = self._features.select(polars.all().gather(places))
        return chosen

    def _sort(self, frame: pl.DataFrame, keys: pl.Series, times: NDArray[np.int64]) -> None:
        polars = require("polars", extra=EXTRA)
        wanted = polars.Int64 if self.key_type == "int64" else polars.String
        sides = polars.DataFrame({"key": keys.cast(wanted), "time": times})
        order = sides.select(polars.arg_sort_by("key", "time")).to_series()
        sides = sides[order]
        self._refuse_twins(sides)
        counts = sides.group_by("key", maintain_order=True).len()
        self._ordinals = {key: place for place, key in enumerate(counts["key"].to_list())}
        starts = np.concatenate([[0], np.cumsum(counts["len"].to_numpy())]).astype(np.int64)
        self._starts = array("q", starts.tobytes())
        self._times = array("q", sides["time"].to_numpy().astype(np.int64).tobytes())
        self._features = frame.select(
            polars.col(each).alias(name)
            for each, name in zip(self._view.columns, self._view.features, strict=True)
        )[order]

    def _size(self) -> int:
        texts = sum(map(sys.getsizeof, self._ordinals)) if self.key_type == "string" else 0
        numbers = 8 * (len(self._times) + len(self._starts))
        return int(
            self._features.estimated_size() + numbers + _KEY_BYTES * len(self._ordinals) + texts
        )

    def _refuse_twins(self, sides: pl.DataFrame) -> None:
        twins = sides.filter(sides.is_duplicated())
        if len(twins):
            key, moment = twins.row(0)
            raise InvalidRequest(
                f"{self.source}: {len(twins):,} rows share key and time, such as those of "
                f"{self._view.key} {key!r} at {_shown(moment)}; which of them holds is not said, "
                "so keep one of each"
            )

    def _check(self, keys: Sequence[Any], moments: Moments) -> None:
        wanted = int if self.key_type == "int64" else str
        strange = {*map(type, keys)} - {wanted, type(None)}
        if strange:
            row = next(at for at, key in enumerate(keys) if type(key) in strange)
            raise InvalidRequest(
                f"Row {row}: {self._view.asked_key!r} is {shown(keys[row])}, and the keys of "
                f"{self.source} are {self.key_type}",
                parameter=self._view.asked_key,
            )
        if wanted is int:
            _refuse_large(keys, f"Row {{row}}: {self._view.asked_key!r}")
        if moments.is_zoned is not None and len(self) and moments.is_zoned != self.is_zoned:
            with_zone, without = (
                ("the rows", self.source) if moments.is_zoned else (self.source, "the rows")
            )
            raise InvalidRequest(
                f"The times of {with_zone} have a time zone, and those of {without} have none; "
                "give both of them one, such as 2026-01-31T09:00:00Z"
            )

    def _place(self, key: Any, moment: int) -> int | Why:
        ordinal = self._ordinals.get(key)
        if ordinal is None:
            return "unknown_key"
        first, end = self._starts[ordinal], self._starts[ordinal + 1]
        place = bisect_right(self._times, moment - self._lag, first, end) - 1
        if place < first:
            return "too_early"
        if self._ttl is not None and moment - self._times[place] > self._ttl:
            return "too_old"
        return place


def _refuse_large(keys: Sequence[int | None], said: str) -> None:
    for row, key in enumerate(keys):
        if key is not None and not _LEAST_KEY <= key <= _LARGEST_KEY:
            raise InvalidRequest(f"{said.format(row=row)} is {shown(key)}, which is no int64")


def key_type(keys: pl.Series, source: str) -> KeyType:
    """Return what keys are. Raises `InvalidRequest` where they are neither text nor whole."""
    if keys.dtype.is_integer():
        return "int64"
    if str(keys.dtype).startswith(("String", "Categorical", "Enum")):
        return "string"
    raise InvalidRequest(
        f"{source}: the key {keys.name!r} holds {keys.dtype}; keys are text or whole numbers"
    )


def moments_of(
    values: pl.Series | Sequence[Any], *, source: str, is_ceiling: bool = False
) -> Moments:
    """Return times as numbers.

    Args:
        values: dates, times of day with a date, or texts of them in ISO 8601; None where missing.
        source: whose they are, for messages.
        is_ceiling: whether parts of a microsecond count as one more, and not as none.

    Raises:
        InvalidRequest: a value is no such time, or some have time zones and some have none; names
            the row.
    """
    if isinstance(values, Sequence):
        return _of_values(values, source, is_ceiling)
    kind = str(values.dtype)
    if not kind.startswith("Date"):
        return _of_values(values.to_list(), source, is_ceiling)
    zone = getattr(values.dtype, "time_zone", None)
    unit = "days" if kind == "Date" else str(values.dtype.time_unit)  # type: ignore[attr-defined]
    counts = values.to_physical().cast(require("polars", extra=EXTRA).Int64)
    if unit == "ns":  # all of them are between the years 1677 and 2262
        counts = -(-counts // 1_000) if is_ceiling else counts // 1_000
    else:
        beyond = (counts < -(-_FIRST // _UNITS[unit])) | (counts > _LAST // _UNITS[unit])
        if beyond.any():
            row = int(beyond.arg_true()[0])
            raise InvalidRequest(
                f"{source}, row {row}: {counts[row]:,} {unit} since 1970 are beyond the years 1 to "
                "9999"
            )
        counts = counts * _UNITS[unit]
    return Moments(counts.to_list(), zone is not None)


def _of_values(values: Sequence[Any], source: str, is_ceiling: bool) -> Moments:
    found: list[int | None] = []
    zoned: set[bool] = set()
    for row, value in enumerate(values):
        if value is None or value == "":
            found.append(None)
            continue
        moment = _moment(value)
        if moment is None:
            raise InvalidRequest(
                f"{source}, row {row}: {shown(value)} is no time such as 2026-01-31T09:00:00Z"
            )
        zoned.add(moment.tzinfo is not None)
        if len(zoned) > 1:
            raise InvalidRequest(
                f"{source}: some times have a time zone, and some have none: that of row {row} is "
                "unlike those before"
            )
        is_cut = is_ceiling and isinstance(value, str) and _CUT.search(value)
        found.append(count(moment) + bool(is_cut))
    return Moments(found, next(iter(zoned), None))


def _moment(value: Any) -> datetime | None:
    if isinstance(value, str):
        try:
            return None if _CUT_ZONE.search(value) else datetime.fromisoformat(value)
        except ValueError:
            return None
    if isinstance(value, datetime):
        return value
    return datetime(value.year, value.month, value.day) if isinstance(value, date) else None  # noqa: DTZ001


def count(moment: datetime) -> int:
    """Return microseconds since 1970; without a time zone, of the clock as it reads."""
    since = moment.replace(tzinfo=None) - _EPOCH - (moment.utcoffset() or timedelta())
    return since // timedelta(microseconds=1)


def text_at(microseconds: int, *, is_zoned: bool) -> str:
    """Return a moment, counted as `count` does, in ISO 8601.

    >>> text_at(1_500_000, is_zoned=True), text_at(0, is_zoned=False)
    ('1970-01-01T00:00:01.500000+00:00', '1970-01-01T00:00:00')
    """
    moment = _EPOCH + timedelta(microseconds=microseconds)
    return f"{moment.isoformat()}+00:00" if is_zoned else moment.isoformat()


def shown(value: Any) -> str:
    """Return a value as a message may have it."""
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def _shown(moment: int) -> str:
    try:
        return (_EPOCH + timedelta(microseconds=moment)).isoformat()
    except OverflowError:
        return str(moment)


def _refuse_missing(source: str, view: FeatureView, frame: pl.DataFrame) -> None:
    for what, name in (("key", view.key), ("time", view.time)):
        missing = frame[name].null_count()
        if missing:
            raise InvalidRequest(f"{source}: {missing:,} rows have no {what} in {name!r}")

"""Forms the dataset of a retraining from a log whose labels come late, twice or never."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from infra.errors import InvalidRequest, NotFound
from infra.plugins import require
from training.tabular import sampling
from training.tabular.retraining import Formation, Labels, Log, Retraining
from training.tabular.specification import Sampling

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of the rows of a log."""

    rows: int
    superseded: int
    """Rows with the key of another whose label came later."""
    too_young: int
    """Rows whose label, if there is one, may still change."""
    without_label: int
    """Rows old enough that have none."""
    labelled: int
    trained_on: int
    replayed: int
    """Of those trained on, rows from before the window."""
    compared: int
    set_aside: int = 0
    """Rows that an earlier version was measured on, so that none is trained on."""

    @property
    def share(self) -> float:
        """Of rows old enough that have a label."""
        known = self.labelled + self.without_label
        return self.labelled / known if known else 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Formed:
    """What is trained on and what is compared on; every row of the latter is later."""

    train: pl.DataFrame
    compare: pl.DataFrame
    counts: Counts
    newest: Any
    """The time of the latest row whose label is final."""

    def as_values(self) -> dict[str, Any]:
        """Return JSON's values."""
        return {**asdict(self.counts), "share": self.counts.share, "newest": str(self.newest)}


def form(rows: pl.DataFrame, asked: Retraining, *, target: str, now: datetime, seed: int) -> Formed:
    """Return the dataset.

    Args:
        rows: of the log, in any order.
        asked: which columns say what, which rows are taken, when labels are final.
        target: the column of labels.
        now: what a delay is counted back from; for a column of numbers it is its largest.
        seed: of samples.

    Raises:
        NotFound: a column does not exist.
        InvalidRequest: a row has no time, or too few rows have a label.
    """
    polars = require("polars", extra="classical")
    log, formation, labels = asked.log, asked.formation, asked.labels
    for name in (log.time, target, *(each for each in (log.key, log.labelled_at) if each)):
        if name not in rows.columns:
            raise NotFound("column", name, among=rows.columns)
    if rows[log.time].null_count():
        raise InvalidRequest(f"{rows[log.time].null_count()} rows of the log have no {log.time!r}")
    clock, has_zone = _moments(rows[log.time]), _has_zone(rows[log.time])
    rows = rows.with_columns(clock.alias(log.time))
    known = _latest(rows, log, target).sort(log.time, maintain_order=True)
    final = _final(known, log, labels, now=now)
    labelled = final.filter(polars.col(target).is_not_null())
    if len(labelled) < labels.min_rows:
        raise InvalidRequest(
            f"{len(labelled)} rows of the log have a final label, and labels.min_rows is "
            f"{labels.min_rows}; {len(known) - len(final)} are too young, "
            f"{len(final) - len(labelled)} have none"
        )
    older, compare = _cut(labelled, log.time, formation.compare)
    window, before = _window(older, log.time, formation, seed=seed)
    replayed = _replayed(before, formation.replay, len(window), seed=seed)
    train = polars.concat([replayed, window])
    newest = labelled[log.time].max()
    if clock.dtype.is_temporal() and not has_zone:  # views whose moments have none could not join
        bare = polars.col(log.time).dt.replace_time_zone(None)
        train, compare = train.with_columns(bare), compare.with_columns(bare)
    counts = Counts(
        rows=len(rows),
        superseded=len(rows) - len(known),
        too_young=len(known) - len(final),
        without_label=len(final) - len(labelled),
        labelled=len(labelled),
        trained_on=len(train),
        replayed=len(replayed),
        compared=len(compare),
    )
    return Formed(train, compare, counts, newest)


def _moments(values: pl.Series) -> pl.Series:
    """Return times that can be reckoned with: numbers as they are, text as the moments it says."""
    polars = require("polars", extra="classical")
    if values.dtype.is_numeric():
        return values
    if str(values.dtype) == "String":
        try:
            values = values.str.to_datetime(time_zone="UTC")
        except polars.exceptions.PolarsError:
            raise InvalidRequest(f"{values.name!r} holds text that is no moment") from None
    if not values.dtype.is_temporal():
        raise InvalidRequest(f"{values.name!r} holds {values.dtype}, which is no time")
    found = values.cast(polars.Datetime("us"))
    if getattr(values.dtype, "time_zone", None):
        return values.dt.convert_time_zone("UTC").cast(polars.Datetime("us", "UTC"))
    return found.dt.replace_time_zone("UTC")


def _has_zone(values: pl.Series) -> bool:
    if str(values.dtype) == "String":
        return bool(values.str.contains(r"\d([Zz]|[+-]\d{2}:?\d{2})$").any())
    return getattr(values.dtype, "time_zone", None) is not None


def _latest(rows: pl.DataFrame, log: Log, target: str) -> pl.DataFrame:
    """Keep one row of each key: of those with a label the one whose label came last."""
    if log.key is None:
        return rows
    polars = require("polars", extra="classical")
    order = [polars.col(target).is_not_null(), polars.col(log.labelled_at or log.time)]
    return rows.sort(order, nulls_last=False, maintain_order=True).unique(
        subset=[log.key], keep="last", maintain_order=True
    )


def _final(rows: pl.DataFrame, log: Log, labels: Labels, *, now: datetime) -> pl.DataFrame:
    polars = require("polars", extra="classical")
    times = rows[log.time]
    last: Any = times.max() if times.dtype.is_numeric() else now
    reach: Any = labels.delay if times.dtype.is_numeric() else timedelta(hours=labels.delay)
    return rows.filter(polars.col(log.time) <= last - reach)


def _cut(rows: pl.DataFrame, time: str, share: float) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the older and the latest rows; those of one time stay together."""
    first = len(rows) - max(1, round(len(rows) * share))
    times = rows[time]
    while first > 0 and times[first - 1] == times[first]:
        first -= 1
    return rows[:first], rows[first:]


def _window(
    rows: pl.DataFrame, time: str, formation: Formation, *, seed: int
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the rows that are taken, and those from before them."""
    match formation.method:
        case "rolling" if formation.rows is not None:
            first = max(0, len(rows) - formation.rows)
        case "rolling" | "expanding":
            first = int((rows[time] < _since(rows[time], formation)).sum())
        case "stratified":
            plan = Sampling(plan="stratified", by=formation.by, rows=formation.rows)
            places = np.arange(len(rows), dtype=np.intp)
            return rows[sampling.draw(rows, places, plan, seed=seed)], rows[:0]
        case _:
            first = 0
    return rows[first:], rows[:first]


def _since(times: pl.Series, formation: Formation) -> Any:
    """Return the time from which on rows are taken."""
    is_number = times.dtype.is_numeric()
    if formation.length is not None:
        newest: Any = times.max()
        return newest - (formation.length if is_number else timedelta(hours=formation.length))
    start = formation.start
    if is_number != isinstance(start, int | float):
        raise InvalidRequest(f"formation.start: {start!r} is no value of {times.name!r}")
    if is_number:
        return start
    polars = require("polars", extra="classical")
    return _moments(polars.Series("formation.start", [start]))[0]


def _replayed(before: pl.DataFrame, ratio: float, window: int, *, seed: int) -> pl.DataFrame:
    count = min(len(before), round(ratio * window))
    places = np.random.default_rng(seed).permutation(len(before))[:count]
    return before[np.sort(places)]

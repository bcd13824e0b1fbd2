"""The point-in-time join of a feature view: one row and many, beside `join_asof` of polars."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.options import Options
from benchmarks.table import Row, Spread
from infra.feature_views import FeatureView
from infra.plugins import require
from infra.point_in_time import Index, moments_of

if TYPE_CHECKING:
    import polars as pl

ROWS = 1_000_000
KEYS = 100_000
ASKED = 200_000
SECONDS = 90 * 86_400
SEED = 7
PEER = "polars join_asof"


def run(options: Options) -> list[Row]:
    """Join one row and many to a view of a million; both find the same."""
    polars = require("polars", extra="classical")
    part = 100 if options.quick else 1
    draw = np.random.default_rng(SEED)
    known = _table(draw, ROWS // part, KEYS // part).unique(["key", "at"]).sort("at")
    known = known.with_columns(balance=draw.normal(size=len(known)))
    asked = _table(draw, ASKED // part, KEYS // part).sort("at")
    view = FeatureView.model_validate(
        {"rows": "dataset/known", "key": "key", "time": "at", "columns": ["balance"]}
    )
    options.say(f"sorting {len(known):,} rows of {KEYS // part:,} keys")
    index = Index(view, known, source="dataset/known")

    def ours(rows: pl.DataFrame) -> pl.DataFrame:
        moments = moments_of(rows["at"], source="the rows")
        return index.features(index.find(rows["key"].to_list(), moments))

    def theirs(rows: pl.DataFrame) -> pl.DataFrame:
        found: pl.DataFrame = rows.join_asof(known, on="at", by="key", check_sortedness=False)
        return found.select("balance")

    found = []
    for count in (1, 100, len(asked)):
        rows = asked[:count]
        if not ours(rows).equals(theirs(rows)):
            raise RuntimeError(f"{PEER} finds other values of {count:,} rows")
        mine, peers = _times(options.repeats, partial(ours, rows), partial(theirs, rows))
        for clock, one, other in zip(("", ", time of processors"), mine, peers, strict=True):
            name = f"{count:,} row{'s' if count > 1 else ''}{clock}"
            found.append(Row(name, one, peer=other, peer_name=PEER, unit="ms"))
    size = Spread((index.size_bytes / 2**20,))
    note = f"{len(known):,} rows, {polars.__version__} of polars"
    return [*found, Row("the view in memory", size, unit="MiB", note=note)]


def _table(draw: np.random.Generator, rows: int, keys: int) -> pl.DataFrame:
    polars = require("polars", extra="classical")
    seconds = polars.Series(draw.integers(0, SECONDS, size=rows) * 1_000_000)
    found: pl.DataFrame = polars.DataFrame(
        {
            "key": [f"customer-{each}" for each in draw.integers(0, keys, size=rows)],
            "at": seconds.cast(polars.Datetime("us", "UTC")),
        }
    )
    return found


def _times(repeats: int, *works: Callable[[], Any]) -> list[tuple[Spread, Spread]]:
    """Return of each work its milliseconds by the clock and of processors, taken in turns."""
    taken: list[tuple[list[float], list[float]]] = [([], []) for _ in works]
    for _ in range(repeats):
        for work, (clock, processors) in zip(works, taken, strict=True):
            started, used = time.perf_counter(), time.process_time()
            work()
            clock.append(1e3 * (time.perf_counter() - started))
            processors.append(1e3 * (time.process_time() - used))
    return [(Spread(tuple(clock)), Spread(tuple(used))) for clock, used in taken]

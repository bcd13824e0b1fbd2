"""The rule of freshness: the newest moment of a column against a clock that is passed in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import polars as pl

from infra.expectations import table_rules
from infra.expectations.comparing import KEY, in_utc
from infra.expectations.evaluation import Stated, Table
from infra.expectations.types import is_of


def evaluate_freshness(rule: table_rules.Freshness, table: Table) -> Stated:
    """Compare the newest moment with the clock."""
    dtype = table.require(rule.column, ["date", "datetime", "string"], "a date or a moment")
    zone = ZoneInfo(rule.time_zone)
    if is_of(dtype, "string"):
        newest = _newest_written(table.values(rule.column), zone)
    else:
        found = table.select(rule.column).select(pl.col(KEY).max()).collect().item()
        newest = found if found is None else in_utc(found, zone)
    if newest is None:
        return Stated(passed=False, message=f"column {rule.column!r} has no date or moment")
    now = table.now.astimezone(UTC)
    age = now - newest
    observed = {"newest": newest.isoformat(), "age_seconds": age.total_seconds()}
    if -age > rule.max_ahead:
        message = f"the newest is {newest.isoformat()}, which lies in the future"
        return Stated(passed=False, message=message, observed=observed)
    message = f"the newest is {newest.isoformat()}, {_period(age)} ago"
    # A date is not over before its day is.
    length = timedelta(days=1) if is_of(dtype, "date") else timedelta()
    fresh = age - length <= rule.max_age
    return Stated(fresh, f"{message}; at most {_period(rule.max_age)}", observed)


def _newest_written(texts: pl.Series, zone: ZoneInfo) -> datetime | None:
    """Return the newest of moments that are text; what is none is passed over."""
    newest = None
    for text in texts.unique().drop_nulls():
        try:
            moment = in_utc(datetime.fromisoformat(text.strip()), zone)
        except (ValueError, OverflowError):
            continue
        newest = moment if newest is None else max(newest, moment)
    return newest


def _period(span: timedelta) -> str:
    hours = span.total_seconds() / 3600
    return f"{hours:.1f} hours" if abs(hours) < 72 else f"{hours / 24:.1f} days"

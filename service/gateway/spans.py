"""The days and months of UTC that budgets are for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Literal, TypeAlias, get_args

Period: TypeAlias = Literal["total", "day", "month"]
PERIODS: tuple[Period, ...] = get_args(Period)


def span_of(period: Period, now: datetime) -> str:
    """Return what a moment's account is called: its day or month in UTC, or `total`."""
    moment = now.astimezone(UTC)
    return {"total": "total", "day": f"{moment:%Y-%m-%d}", "month": f"{moment:%Y-%m}"}[period]


def spans(now: datetime) -> frozenset[str]:
    """Return the spans of time that a moment lies in."""
    return frozenset(span_of(period, now) for period in PERIODS)


def seconds_left(period: Period, now: datetime) -> float:
    """Return how long until the budget is new; for one that never is, an hour, to ask again."""
    moment = now.astimezone(UTC)
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    if period == "total":
        return 3600.0
    if period == "day":
        return (midnight + timedelta(days=1) - moment).total_seconds()
    first = (midnight.replace(day=1) + timedelta(days=32)).replace(day=1)
    return (first - moment).total_seconds()

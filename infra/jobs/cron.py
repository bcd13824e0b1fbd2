"""When a cron expression fires in a time zone, also across changes of the clock."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from infra.errors import InvalidRequest
from infra.plugins import require


def check(expression: str, time_zone: str) -> None:
    """See that an expression has five fields, or is an alias such as `@daily`, and ever fires.

    Raises:
        InvalidRequest: it is malformed, never fires, or the time zone is unknown.
    """
    croniter = require("croniter", extra="jobs")
    zone = _zone(time_zone)
    try:
        fields = croniter.croniter.expand(expression)[0]
        croniter.croniter(expression, datetime(2000, 1, 1, tzinfo=zone)).get_next(datetime)
    except croniter.CroniterError as error:
        raise InvalidRequest(
            f"Cron expression {expression!r} cannot be used: {error}", parameter="cron"
        ) from None
    if len(fields) != 5:
        raise InvalidRequest(
            f"Cron expression {expression!r} has {len(fields)} fields; use five: minute, hour, "
            "day, month, weekday",
            parameter="cron",
        )


def ticks(expression: str, time_zone: str, *, after: datetime) -> Iterator[datetime]:
    """Yield the moments after `after` at which an expression fires, in UTC, in order, for ever.

    A time of day that the clock skips fires when it has moved on. One that the clock goes through
    twice fires the first time only, unless the expression means every hour.
    """
    croniter = require("croniter", extra="jobs").croniter
    every_hour = croniter.expand(expression)[0][1] == ["*"]
    moments = croniter(expression, after.astimezone(_zone(time_zone)))
    while True:
        local = moments.get_next(datetime)
        if local.fold and not every_hour:
            continue
        moment = local.astimezone(UTC)
        if moment > after:
            yield moment


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidRequest(
            f"Unknown time zone {name!r}; use a name such as 'Europe/Berlin'",
            parameter="time_zone",
        ) from None

"""Watches interactions for drift: opens windows, has them judged, tells whoever has to know."""

from __future__ import annotations

import logging
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.errors import NotFound, RagstoneError
from infra.jobs.attempt import Attempt
from infra.jobs.definitions import Behaviour, Registry
from service.work import monitor_windows, monitors

if TYPE_CHECKING:
    from monitoring.watch_results import Result, WatchResults
    from service.wiring import Components

logger = logging.getLogger(__name__)

WATCH = "watch"
SKEW = timedelta(minutes=5)
"""By which the clocks of processes that watch may differ."""
EARLY = timedelta(seconds=30)
"""Before a window ends that the job may look: its ticks come a little sooner or later, and the
next one may be as far away as a window is long."""
_NEXT = timedelta(microseconds=1)
"""By which windows of one look are apart, so that their order is known for ever."""


def define(registered: Registry, parts: Components) -> None:
    """Register the job that looks at all monitors once; a schedule starts it by the clock."""

    @registered.job(WATCH, behaviour=Behaviour(steps=False, lane=WATCH, join=True))
    def watch(attempt: Attempt) -> list[dict[str, Any]]:
        del attempt
        return [described(each) for each in look(parts, now=datetime.now(UTC), early=EARLY)]


def look(
    parts: Components,
    *,
    now: datetime,
    early: timedelta = timedelta(0),
    found: list[Result] | None = None,
) -> list[Result]:
    """Judge what waits of every monitor that is due, or is so soon; returns what was found.

    It is also added to `found`, which has it where a monitor fails.

    Raises (once all have been looked at):
        NotFound: the reference of a monitor is gone.
        InvalidRequest: a monitor asks for what cannot be done.
        Exception: whatever else a detector raises.
    """
    results = stored(parts)
    found = [] if found is None else found
    failure: Exception | None = None
    _tell(parts, now=now)  # what could not be told at looks before
    for name, options in parts.settings.watch.monitors.items():
        try:
            every = timedelta(minutes=options.every_minutes)
            if is_due(results, name, every=every, now=now + min(early, every / 2)):
                found += _look(parts, name, results, now=now)
        except RagstoneError as error:
            logger.warning("the monitor %s did not look: %s", name, error.message)
            failure = failure or error
        except Exception as error:
            logger.exception("the monitor %s did not look", name)
            failure = failure or error  # a detector is a plug-in, and blinds no other monitor
    if failure is not None:
        raise failure
    return found


def is_due(results: WatchResults, name: str, *, every: timedelta, now: datetime) -> bool:
    """Whether the window of a monitor has come to its end, or its rows are to be counted.

    It also is where that would be longer from now than it can be: a clock that was ahead is right
    again, and nobody waits for what it said.
    """
    if (place := results.position(name)) is not None:
        due = place.due
    elif last := results.latest(name, limit=1):
        due = datetime.fromtimestamp(last[-1].report["due"], UTC)
    else:
        return True
    return now >= due or due > now + every + SKEW


def stored(parts: Components) -> WatchResults:
    from monitoring.watch_results import WatchResults

    return WatchResults(parts.database)


def missing(parts: Components, name: str) -> int | None:
    """Return how many rows are missing to a monitor's next window; None where it goes by time.

    Raises:
        NotFound: there is no such monitor.
    """
    options = parts.settings.watch.monitors.get(name)
    if options is None:
        raise NotFound("monitor", name, among=parts.settings.watch.monitors, are_few=True)
    return monitor_windows.missing(parts, options, stored(parts).position(name))


def report(parts: Components, name: str, *, now: datetime) -> bytes:
    """Return a page of what moved in the latest window of a monitor; nothing is stored.

    Raises:
        NotFound: there is no such monitor, or its reference is gone.
    """
    from monitoring.comparison import compare
    from monitoring.watch import features
    from service import drift_report

    monitor, options = monitors.opened(parts, name)
    with tempfile.TemporaryDirectory() as scratch:
        seen = monitor_windows.latest(parts, options, Path(scratch) / "window", now=now)
        reference, window = features(monitor, seen)
        found = compare(reference, window, monitor.plan)
        return drift_report.write(name, found, reference, window, at=now, texts=seen.window)


def described(result: Result) -> dict[str, Any]:
    """Return a result as JSON values."""
    judged = result.judged
    return {
        "monitor": result.monitor,
        "at": judged.at.isoformat(),
        "verdict": judged.verdict,
        "alarm": judged.is_alarm,
        "action": judged.action,
        **result.report,
    }


def _look(parts: Components, name: str, results: WatchResults, *, now: datetime) -> list[Result]:
    from monitoring.watch import look as judge
    from monitoring.watch_results import JudgedAlready

    monitor, options = monitors.opened(parts, name)
    found: list[Result] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "window"
        windows = monitor_windows.waiting(parts, name, options, folder, results=results, now=now)
        try:
            for seen in windows:
                at = now + len(found) * _NEXT
                result, event = judge(monitor, seen, results=results, now=at)
                found.append(result)
                if event is not None:
                    if event.action == "started":
                        parts.jobs.tell()
                    _tell(parts, now=at)
        except JudgedAlready as error:
            logger.info("another process looks at the monitor %s: %s", name, error.message)
    return found


def _tell(parts: Components, *, now: datetime) -> None:
    from monitoring.untold import UntoldEvents, tell

    def failed(receiver: str, error: Exception) -> None:
        # A value that is wrong is shown by its error, such as a header with a key.
        why = error if isinstance(error, OSError) else type(error).__name__
        logger.warning("%s was not told of drift, and is tried again: %s", receiver, why)

    tell(UntoldEvents(parts.database), monitors.receivers(parts), now=now, failed=failed)

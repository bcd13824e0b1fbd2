"""The windows of a monitor: the latest stretch of time, or the next so many rows, each once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from service.work import question_features

if TYPE_CHECKING:
    from infra.monitoring_settings import Monitor as MonitorSettings
    from monitoring.columns import Floats
    from monitoring.estimates import Interval
    from monitoring.interactions import Query
    from monitoring.streams import Place
    from monitoring.watch import Seen, Span
    from monitoring.watch_results import Position, WatchResults
    from monitoring.windows import Window
    from service.wiring import Components


def latest(parts: Components, options: MonitorSettings, folder: Path, *, now: datetime) -> Seen:
    """Return the reference, laid out in an empty folder, and what came last; nothing is stored.

    Raises:
        NotFound: the reference is gone, or the collection whose questions are asked for.
        InvalidRequest: the reference has too few questions.
    """
    from monitoring import interaction_counts
    from monitoring.watch import Span

    reference = _reference(parts, options, folder)
    if options.every_rows is None:
        return _seen(parts, options, reference, now=now)
    until = interaction_counts.settled(parts.database)
    after = _begin(parts, options, options.every_rows, until=until)
    return _seen(parts, options, reference, now=now, rows=Span(after, until))


def waiting(
    parts: Components,
    name: str,
    options: MonitorSettings,
    folder: Path,
    *,
    results: WatchResults,
    now: datetime,
) -> Iterator[Seen]:
    """Yield, as `latest` returns it, every window that is complete, in order.

    Of windows that are so many rows the next one begins where the stored one ended: whoever takes
    one stores what was found of it before asking for another.
    """
    from monitoring import interaction_counts
    from monitoring.watch import Span
    from monitoring.watch_results import Position

    reference = _reference(parts, options, folder)
    if options.every_rows is None:
        yield _seen(parts, options, reference, now=now)
        return
    wanted, rows = _query(options), options.every_rows
    until = interaction_counts.settled(parts.database)
    if (place := results.position(name)) is None:  # the first window is the latest rows
        after = _begin(parts, options, rows, until=until)
        place = results.begin(name, Position(after, missing=rows, due=now))
    after = place.number
    while end := interaction_counts.end_of(parts.database, wanted, rows, after=after, until=until):
        yield _seen(parts, options, reference, now=now, rows=Span(after, end))
        after = end
    short = rows - _count(parts, options, rows, after=after, until=until)
    results.wait(name, missing=short, due=now + timedelta(minutes=options.every_minutes))


def missing(parts: Components, options: MonitorSettings, place: Position | None) -> int | None:
    """Return how many rows there are too few for the next window; None if those go by time."""
    from monitoring import interaction_counts

    if options.every_rows is None:
        return None
    rows, until = options.every_rows, interaction_counts.settled(parts.database)
    after = _begin(parts, options, rows, until=until) if place is None else place.number
    return rows - _count(parts, options, rows, after=after, until=until)


def _reference(parts: Components, options: MonitorSettings, folder: Path) -> Window:
    from monitoring.references import alike, open_reference

    whole = open_reference(parts.artifacts, options.reference, folder)
    return alike(whole, _query(options))


def _begin(parts: Components, options: MonitorSettings, rows: int, *, until: int) -> int:
    from monitoring.interaction_counts import begin_of_latest

    return begin_of_latest(parts.database, _query(options), rows, until=until)


def _count(
    parts: Components, options: MonitorSettings, rows: int, *, after: int, until: int
) -> int:
    from monitoring.interaction_counts import count

    return count(parts.database, _query(options), after=after, until=until, most=rows)


def _query(
    options: MonitorSettings, since: datetime | None = None, until: datetime | None = None
) -> Query:
    from monitoring.interactions import Query

    return Query(
        since,
        until,
        options.kind,
        options.model,
        options.tag,
        options.tenant,
        copies=options.tag is not None,
    )


def _seen(
    parts: Components,
    options: MonitorSettings,
    reference: Window,
    *,
    now: datetime,
    rows: Span | None = None,
) -> Seen:
    from monitoring import interaction_counts
    from monitoring.interaction_exports import table_of
    from monitoring.watch import Seen
    from monitoring.windows import Window

    def since(place: Place, columns: Sequence[str] | None = None) -> Window:
        if isinstance(place, datetime):
            wanted = _query(options, place, now)
            return replace(
                Window.of(table_of(parts.database, wanted, columns)), start=place, end=now
            )
        until = None if rows is None else rows.until
        found = table_of(parts.database, _query(options), columns, after=place, until=until)
        return Window.of(found)

    begins = now - timedelta(minutes=options.every_minutes) if rows is None else rows.after
    window = since(begins)
    if isinstance(begins, datetime):
        ahead = interaction_counts.ahead(parts.database, _query(options, begins, now), now=now)
        window = replace(window, set_aside=ahead)
    if options.questions is not None:
        reference, window = question_features.beside(parts, options.questions, reference, window)
    return Seen(reference, window, since, _mean, rows)


def _mean(labels: Floats, judged: Floats, unlabelled: Floats) -> Interval:
    from evals.statistics.prediction_powered import mean

    return mean(labels=labels, judged=judged, unlabelled=unlabelled)

"""Watches interactions for drift: opens windows, has them judged, tells whoever has to know."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from infra.errors import NotFound
from infra.jobs.attempt import Attempt
from infra.jobs.definitions import Behaviour, Options, Registry
from infra.plugins import load

if TYPE_CHECKING:
    from infra.monitoring_settings import Monitor as MonitorSettings
    from monitoring.watch import Event, Monitor, Tell
    from monitoring.watch_results import Result, WatchResults
    from monitoring.windows import Window
    from service.wiring import Components

logger = logging.getLogger(__name__)

WATCH = "watch"
EVIDENCE = "evidence"


def define(registered: Registry, parts: Components) -> None:
    """Register the job that looks at all monitors once; a schedule starts it by the clock."""

    @registered.job(WATCH, behaviour=Behaviour(steps=False, lane=WATCH, join=True))
    def watch(attempt: Attempt) -> list[dict[str, Any]]:
        del attempt
        return [described(each) for each in look(parts, now=datetime.now(UTC))]


def look(parts: Components, *, now: datetime) -> list[Result]:
    """Judge the window of every monitor that is due; returns what was found.

    Raises:
        NotFound: the reference of a monitor is gone.
    """
    results = stored(parts)
    return [
        _look(parts, name, options, results, now=now)
        for name, options in parts.settings.watch.monitors.items()
        if is_due(results, name, now=now)
    ]


def is_due(results: WatchResults, name: str, *, now: datetime) -> bool:
    """Whether the window of a monitor has come to its end."""
    last = results.latest(name, limit=1)
    return not last or now.timestamp() >= last[-1].report["due"]


def stored(parts: Components) -> WatchResults:
    from monitoring.watch_results import WatchResults

    return WatchResults(parts.database)


def opened(parts: Components, name: str) -> tuple[Monitor, MonitorSettings]:
    """Return a monitor of the settings.

    Raises:
        NotFound: there is none of that name.
    """
    from monitoring.alarm import Patience
    from monitoring.comparison import Plan
    from monitoring.watch import Monitor

    options = parts.settings.watch.monitors.get(name)
    if options is None:
        raise NotFound("monitor", name, among=parts.settings.watch.monitors, are_few=True)
    patience = Patience(
        options.confirm, options.among, options.clear, timedelta(hours=options.cool_down_hours)
    )
    plan = Plan(by_column=options.detectors, level=options.level)
    every = timedelta(minutes=options.every_minutes)
    return Monitor(name, every, plan, options.floors, patience), options


def windows(
    parts: Components, options: MonitorSettings, folder: Path, *, now: datetime
) -> tuple[Window, Window]:
    """Return the reference, and what came since the last look."""
    from monitoring.interaction_exports import table_of
    from monitoring.interactions import Query
    from monitoring.references import open_reference
    from monitoring.windows import Window

    reference = open_reference(parts.artifacts, options.reference, folder)
    since = now - timedelta(minutes=options.every_minutes)
    query = Query(since, now, options.kind, options.model, options.tag, options.tenant)
    return reference, Window.of(table_of(parts.database, query))


def features(options: MonitorSettings, reference: Window, window: Window) -> tuple[Window, Window]:
    """Return both with the columns alone that are compared."""
    names = tuple(name for name in options.features if name in reference.names)
    return replace(reference, names=names), replace(window, names=names)


def report(parts: Components, name: str, *, now: datetime) -> bytes:
    """Return a page of what moved in the latest window of a monitor; nothing is stored.

    Raises:
        NotFound: there is no such monitor, or its reference is gone.
    """
    from monitoring.comparison import compare
    from service import drift_report

    monitor, options = opened(parts, name)
    with tempfile.TemporaryDirectory() as scratch:
        whole, everything = windows(parts, options, Path(scratch) / "window", now=now)
        reference, window = features(options, whole, everything)
        found = compare(reference, window, monitor.plan)
        return drift_report.write(name, found, reference, window, at=now, texts=everything)


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


def _look(
    parts: Components, name: str, options: MonitorSettings, results: WatchResults, *, now: datetime
) -> Result:
    from monitoring.watch import look as judge

    monitor, _ = opened(parts, name)
    with tempfile.TemporaryDirectory() as scratch:
        found = windows(parts, options, Path(scratch) / "window", now=now)
        reference, window = features(options, *found)
        result, event = judge(monitor, reference, window, results=results, now=now)
    if event is not None:
        _act(parts, options, event)
    return result


def _act(parts: Components, options: MonitorSettings, event: Event) -> None:
    from monitoring.watch import tell

    if event.action == "pipeline" and options.pipeline is not None:
        _start(parts, options, event)
    tell(event, _receivers(parts), failed=partial(logger.warning, "not told of drift: %s"))


def _receivers(parts: Components) -> Sequence[Tell]:
    chosen = parts.settings.watch.receivers
    return [load("monitoring.receivers", name)(options) for name, options in chosen.items()]


def _start(parts: Components, options: MonitorSettings, event: Event) -> None:
    """Start the pipeline with the evidence at hand; the same event starts it once."""
    from infra.artifacts.publishing import Made

    metadata = {"monitor": event.monitor, "summary": event.summary}
    with parts.artifacts.writer(f"{EVIDENCE}/{event.monitor}", Made(metadata=metadata)) as draft:
        (draft.folder / "evidence.json").write_bytes(orjson.dumps(asdict(event)))
    given = {options.evidence_parameter: str(draft.reference)} if options.evidence_parameter else {}
    key = f"watch/{event.monitor}/{event.at.isoformat()}"
    arguments = {"file": options.pipeline, "params": given}
    parts.jobs.start("pipeline.run", arguments, options=Options(key=key))

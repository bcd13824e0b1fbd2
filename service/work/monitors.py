"""Monitors as the settings name them: what they compare, what they start, and whom they tell."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import orjson

from infra.errors import InvalidConfiguration, InvalidRequest, NotFound
from infra.jobs.definitions import Options
from infra.plugins import load
from service.work import question_features

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from infra.monitoring_settings import Monitor as MonitorSettings
    from infra.monitoring_settings import Trigger as TriggerSettings
    from monitoring.comparison import Plan
    from monitoring.estimates import Labelled, Unlabelled
    from monitoring.triggers import Event, Start, Trigger
    from monitoring.untold import Tell
    from monitoring.watch import Monitor
    from service.wiring import Components

EVIDENCE = "evidence"
_TIMES = "at"


def opened(parts: Components, name: str) -> tuple[Monitor, MonitorSettings]:
    """Return a monitor of the settings.

    Raises:
        NotFound: there is none of that name.
        InvalidConfiguration: there is no such time zone or detector, a detector does not take its
            parameters, or the trigger's job or pipeline its arguments.
    """
    from monitoring.alarm import Patience
    from monitoring.streams import Stream
    from monitoring.watch import Monitor

    options = parts.settings.watch.monitors.get(name)
    if options is None:
        raise NotFound("monitor", name, among=parts.settings.watch.monitors, are_few=True)
    _check_detectors(name, options)
    monitor = Monitor(
        name,
        timedelta(minutes=options.every_minutes),
        plan=_plan(options),
        features=_features(options),
        floors=options.floors,
        unlabelled=_unlabelled(options),
        labelled=_labelled(options),
        streams=[
            Stream(column, each.detector, each.parameters)
            for column, each in options.streams.items()
        ],
        patience=Patience(options.confirm, options.among, options.clear),
        trigger=None if options.trigger is None else _trigger(parts, name, options.trigger),
        receivers=tuple(parts.settings.watch.receivers),
    )
    return monitor, options


def receivers(parts: Components) -> dict[str, Tell]:
    """Return whoever is told of events, by name.

    Raises:
        InvalidConfiguration: there is no such receiver, or it does not take its options.
    """
    chosen = parts.settings.watch.receivers
    return {name: load("monitoring.receivers", name)(each) for name, each in chosen.items()}


def check(parts: Components) -> None:
    """See that detectors and receivers take what they are given, before there is anything to tell.

    Raises:
        InvalidConfiguration: one does not.
    """
    for name, options in parts.settings.watch.monitors.items():
        _check_detectors(name, options)
        _plan(options)
    receivers(parts)


def _features(options: MonitorSettings) -> tuple[str, ...]:
    return (*options.features, *question_features.names(options.questions))


def _plan(options: MonitorSettings) -> Plan:
    from monitoring.comparison import Plan
    from monitoring.detector import Chosen

    chosen = _features(options)  # none is all of the reference's
    by_column = {
        column: Chosen(each.detector, each.parameters) for column, each in options.detectors.items()
    }
    whole = options.together
    plan = Plan(
        by_column=by_column,
        level=options.level,
        correction=options.correction,
        together=None if whole is None else Chosen(whole.detector, whole.parameters),
        slices=options.slices,
        leave_out=[name for name in options.slices if chosen and name not in chosen],
    )
    if not options.seasonal:
        return plan
    try:
        return replace(plan, season=_TIMES, zone=ZoneInfo(options.time_zone))
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise InvalidConfiguration(f"No time zone {options.time_zone!r}: {error}") from error


def _check_detectors(monitor: str, options: MonitorSettings) -> None:
    from monitoring.detector import is_sequential, open_detector

    compared = {f"detectors.{column}": each for column, each in options.detectors.items()}
    if options.together is not None:
        compared["together"] = options.together
    streams = {f"streams.{column}": each for column, each in options.streams.items()}
    for place, chosen in {**compared, **streams}.items():
        where = f"watch.monitors.{monitor}.{place}"
        try:
            detector = open_detector(chosen.detector, chosen.parameters)
        except (InvalidConfiguration, InvalidRequest) as error:
            raise InvalidConfiguration(f"{where}: {error.message}") from error
        is_stream = is_sequential(detector)
        if is_stream != (place in streams):
            does = "watches streams" if is_stream else "compares windows"
            raise InvalidConfiguration(f"{where}: {chosen.detector!r} {does}; choose another")
        if place == "together" and "vectors" not in detector.reads:
            raise InvalidConfiguration(
                f"{where}: {chosen.detector!r} reads no vectors, which rows of all features are; "
                "choose another"
            )
        if not is_stream and "level" in chosen.parameters:
            raise InvalidConfiguration(
                f"{where}: all tests of a window share one level; set "
                f"watch.monitors.{monitor}.level"
            )


def _unlabelled(options: MonitorSettings) -> list[Unlabelled]:
    from monitoring.estimates import Unlabelled

    return [
        Unlabelled(
            name,
            each.metric,
            each.probabilities,
            each.label,
            features=each.features,
            threshold=each.threshold,
            floor=each.floor,
        )
        for name, each in options.estimates.items()
    ]


def _labelled(options: MonitorSettings) -> list[Labelled]:
    from monitoring.estimates import Labelled

    return [
        Labelled(
            name,
            each.label,
            right=each.right,
            prediction=each.prediction,
            judged=each.judged,
            apart=each.apart,
            least_labels=each.least_labels,
            over=timedelta(days=each.days),
            floor=each.floor,
        )
        for name, each in options.labelled.items()
    ]


def _trigger(parts: Components, monitor: str, options: TriggerSettings) -> Trigger:
    from monitoring.triggers import Trigger

    _check(parts, monitor, options)

    def prepare(event: Event) -> Start:
        """Store the evidence; the job that is given it is queued later, with the window."""
        name, arguments = _called(options, _evidence(parts, event))
        key = Options(key=f"watch/{event.monitor}/{event.at.isoformat()}")

        def start(connection: Connection) -> str:
            return parts.jobs.start(name, arguments, options=key, connection=connection).id

        return start

    seconds = 3600 * options.cool_down_hours
    return Trigger(f"{monitor}/{options.when}", options.when, prepare, cool_down_seconds=seconds)


def _called(options: TriggerSettings, evidence: str) -> tuple[str, dict[str, Any]]:
    """Return the job that is started, and its arguments."""
    from infra.pipelines.parameters import as_text
    from service.work.pipelining import RUN

    given = {options.evidence_parameter: evidence} if options.evidence_parameter else {}
    arguments = {**options.arguments, **given}
    if options.pipeline is None:
        return str(options.job), arguments
    texts = {each: as_text(value, where=f"arguments.{each}") for each, value in arguments.items()}
    return RUN, {"file": options.pipeline, "params": texts}


def _check(parts: Components, monitor: str, options: TriggerSettings) -> None:
    """See now that what is started would begin, and not when there is harm.

    A job or a file that is not here may be where the workers are.
    """
    from infra.pipelines.definition import load as load_pipeline

    try:
        name, arguments = _called(options, f"{EVIDENCE}/{monitor}@v1")
        if name in parts.jobs.registry.names:
            parts.jobs.registry.get(name).check(arguments)
        if options.pipeline is not None and Path(options.pipeline).is_file():
            load_pipeline(Path(options.pipeline), arguments["params"])
    except (InvalidRequest, NotFound) as error:
        raise InvalidConfiguration(
            f"watch.monitors.{monitor}.trigger would start nothing: {error.message}"
        ) from error


def _evidence(parts: Components, event: Event) -> str:
    """Store an event as an artifact; returns which."""
    from infra.artifacts.publishing import Made

    metadata = {"monitor": event.monitor, "summary": event.summary}
    with parts.artifacts.writer(f"{EVIDENCE}/{event.monitor}", Made(metadata=metadata)) as draft:
        (draft.folder / "evidence.json").write_bytes(orjson.dumps(asdict(event)))
    return str(draft.reference)

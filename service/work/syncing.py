"""Syncs: a source by name or spec is opened and a collection brought in step, also as a job."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.errors import Conflict, InvalidRequest, NotFound
from infra.jobs.attempt import Attempt
from infra.jobs.definitions import Behaviour, Registry, Resources, Retries
from infra.jobs.records import Job
from service.work import lanes
from service.work.ingesting import SHOWN_SKIPPED

if TYPE_CHECKING:
    from infra.contracts import Readers
    from retrieval.collections import Collection
    from retrieval.ingest import Event, Summary
    from retrieval.source_definitions import Definition
    from retrieval.sources import Origin, Spec
    from retrieval.sync import Plan
    from service.wiring import Components

SYNC = "sync"
RETRIES = Retries(
    attempts=6,
    first_delay_seconds=10.0,
    max_delay_seconds=600.0,
    permanent=(*Retries().permanent, Conflict),
)
"""A source that is down may come back; one that lost most of its documents is for a person."""
_UNITS = {"m": 60, "h": 24, "d": 1}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be brought in step with what."""

    spec: Spec
    collection: Collection | None
    """None where there is none yet and none is to be made: all is new."""
    options: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    readers: Readers | None = None
    """Who may read the documents; None leaves that as it is, or as the collection says."""
    allow_deletes: bool = False


def define(registered: Registry, parts: Components) -> None:
    """Register the job of this file."""

    @registered.job(
        SYNC,
        resources=Resources(cpu=1),
        retries=RETRIES,
        behaviour=Behaviour(steps=False, lane=lanes.of_collection(parts, lanes.WRITING)),
    )
    def sync(
        attempt: Attempt, *, collection: str, source: str, allow_deletes: bool = False
    ) -> dict[str, Any]:
        del collection  # names the lane
        wanted = by_name(parts, parts.sources.get(source), allow_deletes=allow_deletes)
        return run(attempt, parts, wanted)


def run(attempt: Attempt, parts: Components, wanted: Wanted) -> dict[str, Any]:
    """Bring a collection in step within a job; returns what was done, as JSON can hold it."""
    from retrieval.ingest import Summary

    origin = connect(parts, wanted)
    found = plan(
        parts,
        wanted,
        origin,
        on_listed=lambda count: attempt.progress(None, f"{count} listed"),
    )
    summary, total = Summary(unchanged=found.unchanged), len(found.to_fetch) + len(found.gone)
    with closing(_stream(parts, wanted, origin, found)) as happening:
        for event in happening:
            summary.add(event)
            done = summary.added + summary.updated + summary.removed + len(summary.skipped)
            done += summary.unchanged - found.unchanged
            attempt.progress(min(1.0, done / max(1, total)), f"{done} of {total} changes")
    for skipped in summary.skipped[:SHOWN_SKIPPED]:
        attempt.log(f"{skipped.uri}: {skipped.message}", level="warning")
    reasons = Counter(skipped.code for skipped in summary.skipped)
    return {
        **as_dict(summary, found),
        "skipped": len(summary.skipped),
        "skipped_by_reason": dict(reasons),
        "warnings": len(summary.warnings),
    }


def start(parts: Components, definition: Definition, *, allow_deletes: bool = False) -> Job:
    """Have a named source synced by a worker."""
    return parts.jobs.start(SYNC, job_arguments(definition, allow_deletes=allow_deletes))


def job_arguments(definition: Definition, *, allow_deletes: bool = False) -> dict[str, Any]:
    return {
        "collection": definition.collection,
        "source": definition.name,
        "allow_deletes": allow_deletes,
    }


def schedule_name(name: str) -> str:
    """Return the name of the schedule of a source."""
    return f"sync/{name}"


def by_name(parts: Components, definition: Definition, *, allow_deletes: bool = False) -> Wanted:
    """Return what a named source is to do."""
    return Wanted(
        definition.spec,
        parts.collections.get(definition.collection),
        definition.options,
        definition.metadata,
        definition.readers,
        allow_deletes,
    )


def absolute(spec: Spec) -> Spec:
    """Return a spec that means the same from any working directory."""
    from retrieval.sources import Spec

    if spec.kind not in {"folder", "git"} or spec.place.startswith("file://"):
        return spec
    path, mark, ref = spec.place.partition("#") if spec.kind == "git" else (spec.place, "", "")
    return Spec(spec.kind, os.path.abspath(Path(path).expanduser()) + mark + ref)


def connect(parts: Components, wanted: Wanted) -> Origin:
    """Open the place; raises as `open_origin` does."""
    from retrieval.sources import Context, open_origin

    return open_origin(wanted.spec, Context(parts.settings.sources, wanted.options))


def plan(
    parts: Components,
    wanted: Wanted,
    origin: Origin,
    *,
    on_listed: Callable[[int], object] = lambda _: None,
) -> Plan:
    """List the source and compare; nothing is changed."""
    from retrieval.synced import Synced

    into = wanted.collection
    known = Synced(parts.database, into, origin.identity).known() if into else {}
    return parts.syncer.plan(
        known, origin, metadata=wanted.metadata, readers=wanted.readers, on_listed=on_listed
    )


def events(parts: Components, wanted: Wanted, origin: Origin, found: Plan) -> Iterator[Event]:
    """Carry a plan out."""
    from retrieval.sync import Options
    from retrieval.synced import Synced

    into = wanted.collection
    assert into is not None
    synced = Synced(parts.database, into, origin.identity)
    options = Options(wanted.metadata, wanted.readers, wanted.allow_deletes)
    return parts.syncer.run(into, origin, synced, found, options=options)


def remove_documents(parts: Components, definition: Definition) -> int:
    """Delete what a named source brought in, also where it cannot be reached; returns how many."""
    from retrieval.synced import Synced

    into = parts.collections.get(definition.collection)
    synced = Synced(parts.database, into, definition.identity)
    removed = sum(synced.remove(uri) for uri in synced.known())
    parts.files.sweep()
    return removed


def forget(parts: Components, name: str, *, documents: bool) -> int:
    """Remove a named source and its schedule; returns how many documents went with it."""
    definition = parts.sources.get(name)
    removed = remove_documents(parts, definition) if documents else 0
    with suppress(NotFound):  # it has no schedule
        parts.jobs.schedules.remove(schedule_name(name))
    parts.sources.remove(name)
    return removed


def cron_of(every: str) -> str:
    """Return the cron expression of an interval such as `15m`, `6h` or `1d`.

    >>> cron_of("15m"), cron_of("6h"), cron_of("1d")
    ('*/15 * * * *', '0 */6 * * *', '0 0 * * *')

    Raises:
        InvalidRequest: the clock cannot be divided so.
    """
    number, unit = every[:-1], every[-1:]
    if not (number.isascii() and number.isdigit()) or unit not in _UNITS:
        raise InvalidRequest(f"{every!r} is no interval; write 15m, 6h or 1d", parameter="every")
    count = int(number)
    if count < 1 or _UNITS[unit] % count:
        raise InvalidRequest(
            f"{every!r} does not divide an hour or a day evenly; give --cron", parameter="every"
        )
    if unit == "d" or (unit == "h" and count == 24):
        return "0 0 * * *"
    if unit == "h" or count == 60:
        return "0 * * * *" if count in {1, 60} else f"0 */{count} * * *"
    return "* * * * *" if count == 1 else f"*/{count} * * * *"


def as_dict(summary: Summary, found: Plan) -> dict[str, Any]:
    """Return what a sync did, in what JSON can hold."""
    return {**asdict(summary), "withheld": found.withheld}


def _stream(parts: Components, wanted: Wanted, origin: Origin, found: Plan) -> Any:
    yield from events(parts, wanted, origin, found)

"""`ragstone ingest`: reads files and folders into a collection and says what became of each."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.output import (
    Allow,
    CollectionName,
    Json,
    On,
    Tenant,
    Workers,
    note,
    place,
    print_json,
    say,
    waiting,
)
from service.cli.progress import watched
from service.cli.readers import parse_readers
from service.cli.session import opened

if TYPE_CHECKING:
    from infra.contracts import Readers
    from retrieval.collections import Collection
    from retrieval.ingest import Summary
    from retrieval.sources import Source, Unwalkable
    from service.wiring import Components

WORTH_A_RATE = 100
"""Chunks; with fewer, the start of the model is all that would be measured."""
SHOWN_FILES = 8
"""Of those that share a reason; `--json` has them all."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an ingest did and how long it took."""

    collection: str
    summary: Summary
    seconds: float

    @property
    def read(self) -> int:
        return self.summary.added + self.summary.updated + self.summary.unchanged

    def as_dict(self) -> dict[str, Any]:
        chunks = self.summary.chunks
        return {
            "collection": self.collection,
            **asdict(self.summary),
            "seconds": round(self.seconds, 3),
            "chunks_per_second": round(chunks / self.seconds, 1) if chunks else 0.0,
        }


def ingest(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH...", help="Files, or folders with all they hold.")
    ],
    collection: CollectionName = "default",
    metadata: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Given to every document; may be repeated."),
    ] = None,
    tenant: Tenant = None,
    allow: Allow = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove documents whose file is gone from the folders.")
    ] = False,
    background: Annotated[
        bool, typer.Option("--background", help="Leave it to a running service or worker.")
    ] = False,
    on: On = "here",
    workers: Workers = 2,
    json: Json = False,
) -> None:
    """Read files and folders into a collection.

    The collection is created if there is none of that name. Files that have not changed are passed
    over, so running it again costs little. A file that cannot be read is skipped and reported; the
    exit code is 1 only when not one file could be read.
    """
    from retrieval.sources.folder import walk

    given = parse_metadata(metadata or [])
    readers = parse_readers(tenant, allow)
    if background:
        _queue(paths, collection, metadata=given, readers=readers, prune=prune, json=json)
        return
    with opened() as parts:
        sources = list(walk(paths, metadata=given, readers=readers))
        into = find_or_create(parts, collection)
        folders = [path for path in paths if path.is_dir()] if prune else []
        if on == "ray":
            _on_ray(parts, into, sources, workers=workers)
        outcome = run(parts, into, sources, pruned_folders=folders)
    if json:
        print_json(outcome.as_dict())
    else:
        _print(outcome)
    if outcome.summary.skipped and not outcome.read:
        raise typer.Exit(1)


def _on_ray(
    parts: Components,
    into: Collection,
    sources: Sequence[Source | Unwalkable],
    *,
    workers: int,
) -> None:
    """Have a Ray cluster read the sources; what `run` finds unchanged afterwards is in."""
    from service.work.ray_ingest import ingest_on_ray

    with waiting(f"reading on {workers} Ray workers"):
        summary = ingest_on_ray(parts.settings, into, sources, workers=workers)
    note(f"Ray: {summary.added} added, {summary.updated} updated, {summary.chunks} chunks")


def _queue(
    paths: Sequence[Path],
    collection: str,
    *,
    metadata: dict[str, Any],
    readers: Readers | None,
    prune: bool,
    json: bool,
) -> None:
    from retrieval.sources.folder import walk
    from service.cli import job_output
    from service.work.ingesting import read_folders

    with opened() as parts:
        walk(paths)  # says so if one does not exist
        into = find_or_create(parts, collection)
        job = read_folders(parts, into, paths, metadata=metadata, readers=readers, prune=prune)
        job_output.tell_without_worker(parts)
    if json:
        print_json(job_output.as_dict(job))
    else:
        say(f"{job.id} is {job.state}; follow it with: ragstone jobs watch {job.id}")


def run(
    parts: Components,
    into: Collection,
    sources: Sequence[Source | Unwalkable],
    *,
    pruned_folders: Sequence[Path] = (),
) -> Outcome:
    """Ingest sources, show the progress, bring the index up to date and make it durable."""
    from retrieval.ingest import Summary

    summary = Summary()
    start = time.perf_counter()
    for event in watched(parts.ingester.ingest(into, sources), sources):
        summary.add(event)
    if pruned_folders:
        _prune(parts, into, sources, folders=pruned_folders, summary=summary)
    view = parts.views.get(into)
    with waiting("indexing"):
        view.refresh()
        view.checkpoint(at_least=1)
    return Outcome(into.name, summary, time.perf_counter() - start)


def find_or_create(parts: Components, name: str) -> Collection:
    """Return the collection of that name, made with the settings' recipe if there is none."""
    from infra.errors import Conflict, NotFound

    try:
        return parts.collections.get(name)
    except NotFound:
        recipe = parts.recipe()
    try:
        return parts.collections.create(name, recipe)
    except Conflict:  # another process was faster
        return parts.collections.get(name)


def parse_metadata(pairs: Sequence[str]) -> dict[str, Any]:
    """Turn `key=value` pairs into metadata: numbers, true and false as such, all else as text."""
    parsed: dict[str, Any] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not key or not separator:
            raise typer.BadParameter(f"{pair!r} is not of the form KEY=VALUE")
        parsed[key] = parse_value(value)
    return parsed


def parse_value(text: str) -> str | int | float | bool:
    """Read a number, `true` or `false`, or a quoted string as JSON does; anything else is text."""
    import json

    try:
        value = json.loads(text, parse_constant=_refuse)
    except ValueError:
        return text
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return text  # more than JSON's readers and writers agree on
    return value if isinstance(value, str | int | float | bool) else text


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number that can be compared")


def _prune(
    parts: Components,
    into: Collection,
    sources: Sequence[Source | Unwalkable],
    *,
    folders: Sequence[Path],
    summary: Summary,
) -> None:
    from retrieval.sources import Unwalkable

    refused = [place(source.uri) for source in sources if isinstance(source, Unwalkable)]
    unlisted = [path for path in refused if Path(path).is_dir()]
    if unlisted:  # what lies below is not known to be gone
        note(f"Nothing pruned: {unlisted[0]} cannot be listed")
        return
    for event in parts.ingester.prune(into, folders, {source.uri for source in sources}):
        summary.add(event)


def _print(outcome: Outcome) -> None:
    summary = outcome.summary
    for name in ("added", "updated", "unchanged", "removed"):
        say(f"{name:<10}{getattr(summary, name):>7}")
    say(f"{'skipped':<10}{len(summary.skipped):>7}")
    print_grouped((f"{item.code}: {item.message}", item.uri) for item in summary.skipped)
    if summary.warnings:
        say(f"{'in part':<10}{len({warning.uri for warning in summary.warnings}):>7}")
        print_grouped((warning.message, warning.uri) for warning in summary.warnings)
    line = f"chunks {summary.chunks}, time {outcome.seconds:.1f} s"
    if summary.chunks >= WORTH_A_RATE:
        line += f", {summary.chunks / outcome.seconds:.1f} chunks per second"
    say(line)


def print_grouped(reasons: Iterable[tuple[str, str]]) -> None:
    """Print sources by the reason that is given for them, the most frequent reason first."""
    groups: dict[str, list[str]] = {}
    for reason, uri in reasons:
        groups.setdefault(reason, []).append(place(uri))
    for reason, files in sorted(groups.items(), key=lambda group: -len(group[1])):
        say(f"  {reason}")
        for file in files[:SHOWN_FILES]:
            say(f"    {file}")
        if len(files) > SHOWN_FILES:
            say(f"    and {len(files) - SHOWN_FILES} more")

"""`ragstone collections`: rebuild, swap, roll back and retire builds; snapshot and restore."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.output import Json, Yes, note, print_json, print_table, say, waiting
from service.cli.session import opened

if TYPE_CHECKING:
    from retrieval.build_state import Build
    from retrieval.collections import Collection
    from service.wiring import Components

Name = Annotated[str, typer.Argument(help="Name or id of the collection.")]
Expect = Annotated[
    int | None, typer.Option(metavar="BUILD", help="Refuse if another build than this is live.")
]
COLUMNS = ("id", "state", "documents", "missing", "chunks", "embedder", "dimension", "chunk_tokens")


def add_to(app: typer.Typer) -> None:
    """Add these commands to `ragstone collections`."""
    for name, command in (
        ("builds", builds),
        ("rebuild", rebuild),
        ("swap", swap),
        ("rollback", rollback),
        ("retire", retire),
        ("snapshot", snapshot),
        ("restore", restore),
    ):
        app.command(name)(command)


def builds(
    name: Name,
    history: Annotated[
        bool, typer.Option("--history", help="What happened to them instead.")
    ] = False,
    json: Json = False,
) -> None:
    """List the builds of a collection: which answers, which stands by, which is being made."""
    from service.work.building import row

    with opened() as parts:
        whole = parts.collections.get(name)
        if history:
            _print_history(parts, whole, json=json)
            return
        rows = [row(parts, each) for each in parts.builds.list(whole)]
    if json:
        print_json(rows)
        return
    cells = [[each[column] for column in COLUMNS] for each in rows]
    print_table(COLUMNS, cells, numbers=("id", "documents", "missing", "chunks", "dimension"))


def rebuild(
    name: Name,
    embedder: Annotated[
        str | None, typer.Option(help="Plug-in or dotted path; else the setting.")
    ] = None,
    embedder_option: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="What it is opened with; may be repeated."),
    ] = None,
    chunk_tokens: Annotated[
        int | None, typer.Option(min=16, help="Longest chunk; else the setting.")
    ] = None,
    overlap_tokens: Annotated[
        int | None, typer.Option(min=0, help="Tokens that neighbours share; else the setting.")
    ] = None,
    swap: Annotated[
        bool, typer.Option("--swap", help="Let it answer at the end, if it is no worse.")
    ] = False,
    background: Annotated[
        bool, typer.Option("--background", help="Leave it to a running service or worker.")
    ] = False,
    json: Json = False,
) -> None:
    """Build a collection anew beside the build that answers, with another embedder or chunks.

    Stopped at any point, the same command goes on where it was. What is written meanwhile goes to
    both builds.
    """
    from service.cli.ingest import parse_value

    options = {
        key: parse_value(value)
        for key, _, value in (each.partition("=") for each in embedder_option or [])
    }
    with opened() as parts:
        whole = parts.collections.get(name)
        recipe = parts.recipe(
            embedder=embedder,
            embedder_options=options,
            chunk_tokens=chunk_tokens,
            overlap_tokens=overlap_tokens,
        )
        if background:
            _queue(parts, whole, recipe, swap=swap, json=json)
            return
        begun = parts.builds.start(whole, recipe)
        _fill(parts, whole, begun)
        result = _row(parts, whole, begun)
        if swap:
            result |= _swap(parts, whole, expect=whole.build_id, force=False)
    if json:
        print_json(result)
        return
    say(f"Build {begun.id} holds {result['documents']} documents, {result['chunks']} chunks")
    say(
        f"Build {begun.id} answers; {result['verdict']['reason']}"
        if swap
        else f"Let it answer with: ragstone collections swap {whole.name}"
    )


def swap(
    name: Name,
    expect: Expect = None,
    force: Annotated[
        bool, typer.Option("--force", help="Without comparing it with the live build.")
    ] = False,
    json: Json = False,
) -> None:
    """Let the new build answer; the one that did stands by, in step, for a rollback."""
    with opened() as parts:
        result = _swap(parts, parts.collections.get(name), expect=expect, force=force)
    _tell(result, json=json)


def rollback(name: Name, expect: Expect = None, json: Json = False) -> None:
    """Let the build that stands by answer again."""
    from service.work.building import describe

    with opened() as parts:
        whole = parts.collections.get(name)
        result = describe(parts.builds.rollback(whole, expect=expect))
    _tell(result, json=json)


def retire(
    name: Name,
    build: Annotated[int, typer.Argument(help="Number of the build, as `builds` lists it.")],
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Remove a build that does not answer, with its chunks, vectors and index."""
    with opened() as parts:
        whole = parts.collections.get(name)
        found = parts.builds.get(whole, build)
        if not yes and found.state in ("standby", "building"):
            question = f"Remove build {build} of {whole.name!r} ({found.state})?"
            typer.confirm(question, abort=True, err=True)
        result = _row(parts, whole, parts.builds.retire(whole, build))
    if json:
        print_json(result)
    else:
        say(f"Build {build} is {result['state']}")


def snapshot(
    name: Name,
    to: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="Of the artifact; else its own.")
    ] = None,
    without_files: Annotated[
        bool, typer.Option("--without-files", help="Leave out the files as they came.")
    ] = False,
    json: Json = False,
) -> None:
    """Store a collection, as it is now, as an artifact; writes go on meanwhile."""
    from service.work import snapshots

    with opened() as parts:
        whole = parts.collections.get(name)
        with waiting("copying"):
            reference = snapshots.take(parts, whole, name=to, with_bytes=not without_files)
    if json:
        print_json({"artifact": str(reference), "digest": reference.digest})
    else:
        say(f"Stored {reference}")


def restore(
    reference: Annotated[
        str,
        typer.Argument(metavar="REFERENCE", help="Such as collection/faq or collection/faq@v3."),
    ],
    name: Annotated[str, typer.Argument(help="Of the new collection.")],
    json: Json = False,
) -> None:
    """Make a collection from a snapshot; nothing is embedded again."""
    from service.work import snapshots

    with opened() as parts:
        with waiting("restoring"):
            made = snapshots.restore(parts, reference, name)
        counts = parts.collections.statistics(made.id)
    if json:
        print_json({"id": made.public_id, "name": made.name, "chunks": counts.chunks})
    else:
        say(f"Restored {made.name!r}: {counts.documents} documents, {counts.chunks} chunks")


def _queue(parts: Components, whole: Collection, recipe: Any, *, swap: bool, json: bool) -> None:
    from service.cli import job_output
    from service.work.building import rebuild as queue

    begun, job = queue(parts, whole, recipe, swap=swap)
    job_output.tell_without_worker(parts)
    if json:
        print_json({"build": begun.id, "job": job_output.as_dict(job)})
    else:
        say(f"Build {begun.id}: {job.id} is {job.state}; ragstone jobs watch {job.id}")


def _fill(parts: Components, whole: Collection, into: Build) -> None:
    from retrieval.building import Built

    progress = parts.builds.progress(into)
    done, total = progress.documents - progress.missing, progress.documents
    with waiting(f"building {total - done} of {total} documents"):
        for event in parts.builder.fill(whole, into):
            done += isinstance(event, Built)


def _swap(
    parts: Components, whole: Collection, *, expect: int | None, force: bool
) -> dict[str, Any]:
    from service.work.building import describe

    evaluate = None if force else parts.evaluate
    with waiting("comparing"):
        return describe(parts.builds.swap(whole, expect=expect, evaluate=evaluate))


def _row(parts: Components, whole: Collection, build: Build) -> dict[str, Any]:
    from service.work.building import row

    return row(parts, parts.builds.get(whole, build.id))


def _tell(result: dict[str, Any], *, json: bool) -> None:
    if json:
        print_json(result)
        return
    say(f"Build {result['live']} answers, build {result['standby']} stands by")
    if result["verdict"]:
        note(result["verdict"]["reason"])


def _print_history(parts: Components, whole: Collection, *, json: bool) -> None:
    from dataclasses import asdict

    events = parts.builds.history(whole)
    if json:
        print_json([asdict(event) for event in events])
        return
    for event in events:
        say(f"{event.at:%Y-%m-%d %H:%M:%S}  build {event.build_id}  {event.kind}")

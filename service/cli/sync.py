"""`ragstone sync`: brings a collection in step with a source, once, by the clock, or at once."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from service.cli.output import (
    Allow,
    CollectionName,
    Json,
    Tenant,
    note,
    print_json,
    print_table,
    say,
    waiting,
)
from service.cli.readers import parse_readers
from service.cli.session import opened

if TYPE_CHECKING:
    from retrieval.ingest import Summary
    from retrieval.sync import Plan
    from service.wiring import Components
    from service.work.syncing import Wanted

SHOWN_URIS = 20
WATCH_SECONDS = 2.0
"""Between two looks at a folder that is watched."""


class _SourceFirst(TyperGroup):
    """Takes a first word that is no verb for the source to sync."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands:
            args = ["run", *args]
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=_SourceFirst,
    help="Keep a collection in step with a folder, bucket, web site, checkout or query.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
SourceName = Annotated[str, typer.Argument(metavar="NAME", help="The source.")]
Place = Annotated[
    str,
    typer.Argument(
        metavar="NAME|SPEC",
        help="A named source; or a folder, URL, s3://..., git:PATH#REF, or sql:NAME.",
    ),
]
Metadata = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=VALUE", help="Given to every document; may be repeated."),
]
SourceOptions = Annotated[
    list[str] | None,
    typer.Option("--option", "-o", metavar="KEY=VALUE", help="Of the kind of source."),
]
AllowDeletes = Annotated[
    bool, typer.Option("--allow-deletes", help="Remove whatever is gone, however much.")
]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a sync did."""

    plan: Plan
    summary: Summary
    seconds: float


@app.command("run")
def run(
    source: Place,
    collection: CollectionName = "default",
    metadata: Metadata = None,
    option: SourceOptions = None,
    tenant: Tenant = None,
    allow: Allow = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would change; change nothing.")
    ] = False,
    allow_deletes: AllowDeletes = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on: look again every few seconds.")
    ] = False,
    background: Annotated[
        bool, typer.Option("--background", help="Leave it to a running service or worker.")
    ] = False,
    json: Json = False,
) -> None:
    """Bring a collection in step with a source: add, update and remove what changed.

    Documents that have not changed are not fetched. Nothing is removed unless the source could be
    listed to its end. `run` may be left out: ragstone sync ./handbook.
    """
    if watch and (dry_run or background):
        raise typer.BadParameter("--watch goes with neither --dry-run nor --background")
    with opened() as parts:
        if background:
            _queue(parts, source, allow_deletes=allow_deletes, json=json)
            return
        wanted = _named(parts, source) or _wanted(
            parts, source, collection, metadata=metadata, option=option, makes=not dry_run
        )
        readers = parse_readers(tenant, allow) or wanted.readers
        wanted = replace(wanted, allow_deletes=allow_deletes, readers=readers)
        if watch:
            _watch(parts, wanted, json=json)
        outcome = _look(parts, wanted) if dry_run else sync_once(parts, wanted)
    if json:
        print_json({"collection": collection, **_as_dict(outcome, dry_run=dry_run)})
    elif dry_run:
        _print_plan(outcome.plan)
    else:
        _print(outcome)


@app.command("add")
def add(
    name: SourceName,
    spec: Annotated[str, typer.Argument(metavar="SPEC", help="As for `ragstone sync`.")],
    collection: CollectionName = "default",
    metadata: Metadata = None,
    option: SourceOptions = None,
    tenant: Tenant = None,
    allow: Allow = None,
    every: Annotated[str | None, typer.Option(help="Such as 15m, 6h or 1d.")] = None,
    cron: Annotated[str | None, typer.Option(help="Five fields, or such as @daily.")] = None,
    json: Json = False,
) -> None:
    """Name a source; with --every or --cron a worker syncs it by the clock."""
    from infra.jobs.cron import check
    from infra.jobs.schedules import Schedule
    from retrieval.source_definitions import refuse_secrets
    from service.work import syncing

    if every and cron:
        raise typer.BadParameter("--every and --cron exclude each other")
    expression = syncing.cron_of(every) if every else cron
    if expression:
        check(expression, "UTC")
    with opened() as parts:
        wanted = _wanted(parts, spec, collection, metadata=metadata, option=option)
        assert wanted.collection is not None
        refuse_secrets(wanted.spec)
        origin = syncing.connect(parts, wanted)
        definition = parts.sources.add(
            name,
            wanted.spec,
            wanted.collection,
            identity=origin.identity,
            options=wanted.options,
            metadata=wanted.metadata,
            readers=parse_readers(tenant, allow),
        )
        if expression:
            arguments = syncing.job_arguments(definition)
            schedule = Schedule(
                syncing.schedule_name(name), syncing.SYNC, expression, arguments=arguments
            )
            parts.jobs.schedules.put(schedule)
        row = next(row for row in _rows(parts) if row["name"] == name)
    if json:
        print_json(row)
    else:
        say(f"{name!r} is {row['source']}" + (f", synced by {expression!r}" if expression else ""))


@app.command("list")
def list_sources(json: Json = False) -> None:
    """List the named sources and when each is synced."""
    with opened() as parts:
        rows = _rows(parts)
    if json:
        print_json(rows)
    elif rows:
        columns = ("name", "source", "collection", "cron", "next_at")
        print_table(columns, [[_cell(row[column]) for column in columns] for row in rows])
    else:
        note("No sources; `ragstone sync add` names one")


@app.command("remove")
def remove(
    name: SourceName,
    documents: Annotated[
        bool, typer.Option("--documents", help="Remove what it brought in, too.")
    ] = False,
) -> None:
    """Forget a source and its schedule; its documents stay unless --documents is given."""
    from service.work import syncing

    with opened() as parts:
        removed = syncing.forget(parts, name, documents=documents)
    say(f"Removed {name!r}" + (f" and {removed} documents" if documents else ""))


def sync_once(parts: Components, wanted: Wanted) -> Outcome:
    """Sync, show the progress, bring the index up to date and make it durable."""
    from retrieval.ingest import Summary
    from service.cli.progress import counted
    from service.work import syncing

    began = time.perf_counter()
    origin = syncing.connect(parts, wanted)
    with waiting("listing"):
        plan = syncing.plan(parts, wanted, origin)
    summary = Summary(unchanged=plan.unchanged)
    for event in counted(syncing.events(parts, wanted, origin, plan), total=len(plan.to_fetch)):
        summary.add(event)
    assert wanted.collection is not None
    view = parts.views.get(wanted.collection)
    with waiting("indexing"):
        view.refresh()
        view.checkpoint(at_least=1)
    return Outcome(plan, summary, time.perf_counter() - began)


def _watch(parts: Components, wanted: Wanted, *, json: bool) -> NoReturn:
    """Sync whenever something changed, until interrupted; what fails is told and tried again."""
    from infra.errors import Conflict, SourceFailed

    if wanted.spec.kind != "folder":
        raise typer.BadParameter("--watch is for a folder; give others --every or --cron")
    told = ""
    while True:
        try:
            plan = _look(parts, wanted).plan
            if plan.to_fetch or (plan.gone and not plan.withheld):
                outcome = sync_once(parts, wanted)
                if outcome.summary.added or outcome.summary.updated or outcome.summary.removed:
                    _tell(outcome, json=json)
            told = ""
        except (Conflict, SourceFailed) as error:
            if error.message != told:
                note(f"ragstone: {error.message}")
            told = error.message
        time.sleep(WATCH_SECONDS)


def _tell(outcome: Outcome, *, json: bool) -> None:
    if json:
        print_json(_as_dict(outcome, dry_run=False))
    else:
        _print(outcome)


def _look(parts: Components, wanted: Wanted) -> Outcome:
    from retrieval.ingest import Summary
    from service.work import syncing

    began = time.perf_counter()
    with waiting("listing"):
        plan = syncing.plan(parts, wanted, syncing.connect(parts, wanted))
    return Outcome(plan, Summary(unchanged=plan.unchanged), time.perf_counter() - began)


def _named(parts: Components, source: str) -> Wanted | None:
    from infra.errors import NotFound
    from service.work import syncing

    try:
        return syncing.by_name(parts, parts.sources.get(source))
    except NotFound:
        return None


def _wanted(
    parts: Components,
    source: str,
    collection: str,
    *,
    metadata: list[str] | None,
    option: list[str] | None,
    makes: bool = True,
) -> Wanted:
    from infra.errors import NotFound
    from retrieval.sources import Context, open_origin, parse_spec
    from service.cli.ingest import find_or_create, parse_metadata
    from service.work import syncing

    spec = syncing.absolute(parse_spec(source))
    options = {key: str(value) for key, value in parse_metadata(option or []).items()}
    open_origin(spec, Context(parts.settings.sources, options))  # before a collection is made
    try:
        into = find_or_create(parts, collection) if makes else parts.collections.get(collection)
    except NotFound:
        into = None
    return syncing.Wanted(spec, into, options, parse_metadata(metadata or []))


def _queue(parts: Components, name: str, *, allow_deletes: bool, json: bool) -> None:
    from service.cli import job_output
    from service.work import syncing

    job = syncing.start(parts, parts.sources.get(name), allow_deletes=allow_deletes)
    job_output.tell_without_worker(parts)
    if json:
        print_json(job_output.as_dict(job))
    else:
        say(f"{job.id} is {job.state}; follow it with: ragstone jobs watch {job.id}")


def _rows(parts: Components) -> list[dict[str, Any]]:
    from service.work import syncing

    schedules = {each.name: each for each in parts.jobs.schedules.list()}
    rows = []
    for each in parts.sources.list():
        schedule = schedules.get(syncing.schedule_name(each.name))
        rows.append(
            {
                "name": each.name,
                "kind": each.spec.kind,
                "source": each.spec.place,
                "collection": each.collection_name,
                "options": dict(each.options),
                "metadata": dict(each.metadata),
                "cron": schedule.cron if schedule else None,
                "next_at": parts.jobs.schedules.next_tick(schedule.name) if schedule else None,
            }
        )
    return rows


def _as_dict(outcome: Outcome, *, dry_run: bool) -> dict[str, Any]:
    from service.work import syncing

    plan = outcome.plan
    told: dict[str, Any] = {"dry_run": dry_run}
    if dry_run:
        told |= {
            "added": [item.uri for item in plan.new],
            "updated": [item.uri for item in plan.changed],
            "removed": [] if plan.withheld else list(plan.gone),
            "unchanged": plan.unchanged,
            "skipped": [
                {"uri": each.uri, "code": each.code, "message": each.reason}
                for each in plan.refused
            ],
            "withheld": plan.withheld,
        }
    else:
        told |= syncing.as_dict(outcome.summary, plan)
    return {**told, "seconds": round(outcome.seconds, 3)}


def _print_plan(plan: Plan) -> None:
    from service.cli.ingest import print_grouped

    groups = {
        "to add": [item.uri for item in plan.new],
        "to look at": [item.uri for item in plan.changed],
        "to remove": [] if plan.withheld else list(plan.gone),
    }
    for label, uris in groups.items():
        say(f"{label:<11}{len(uris):>7}")
        for uri in uris[:SHOWN_URIS]:
            say(f"    {uri}")
        if len(uris) > SHOWN_URIS:
            say(f"    and {len(uris) - SHOWN_URIS} more")
    say(f"{'unchanged':<11}{plan.unchanged:>7}")
    say(f"{'skipped':<11}{len(plan.refused):>7}")
    print_grouped((f"{each.code}: {each.reason}", each.uri) for each in plan.refused)
    _print_withheld(plan)


def _print(outcome: Outcome) -> None:
    from service.cli.ingest import print_grouped

    summary = outcome.summary
    for name in ("added", "updated", "unchanged", "removed"):
        say(f"{name:<10}{getattr(summary, name):>7}")
    say(f"{'skipped':<10}{len(summary.skipped):>7}")
    print_grouped((f"{item.code}: {item.message}", item.uri) for item in summary.skipped)
    print_grouped((warning.message, warning.uri) for warning in summary.warnings)
    _print_withheld(outcome.plan)
    say(f"chunks {summary.chunks}, time {outcome.seconds:.1f} s")


def _print_withheld(plan: Plan) -> None:
    if plan.withheld and plan.gone:
        note(f"Nothing removed: {plan.withheld}")


def _cell(value: Any) -> str:
    return f"{value:%Y-%m-%d %H:%M %Z}" if hasattr(value, "strftime") else str(value or "")

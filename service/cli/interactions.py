"""`ragstone interactions`: the record of questions and answers, listed, exported, deleted."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.output import Json, Yes, note, print_json, print_table, say
from service.cli.session import opened

if TYPE_CHECKING:
    from infra.contracts import Interaction
    from monitoring.interactions import Query

app = typer.Typer(
    help="List, export and delete the record of questions and answers.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
Model = Annotated[str | None, typer.Option(help="Of this model, such as rag/handbook.")]
Tag = Annotated[str | None, typer.Option(help="Answered by this target of a route.")]
EXPORT_BATCH = 1000


@app.command("list")
def list_interactions(
    model: Model = None,
    tag: Tag = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many.")] = 20,
    json: Json = False,
) -> None:
    """List interactions, newest first."""
    with opened() as parts:
        found = parts.interactions.find(_query(model=model, tag=tag), limit=limit)
    if json:
        print_json([_row(item) for item in found])
    elif found:
        columns = ("at", "model", "tag", "outcome", "status", "tokens", "seconds", "cost", "id")
        print_table(columns, [[_cell(_row(item)[column]) for column in columns] for item in found])
    else:
        note("No interactions; they are written when questions are asked over HTTP")


@app.command("show")
def show(id: Annotated[str, typer.Argument(help="Of an interaction.")], json: Json = False) -> None:
    """Show one interaction with everything that is kept of it."""
    with opened() as parts:
        row = _row(parts.interactions.get(id))
    if json:
        print_json(row)
    else:
        print_table(("field", "value"), [[name, _cell(value)] for name, value in row.items()])


@app.command("export")
def export(
    model: Model = None,
    tag: Tag = None,
    since: Annotated[
        datetime | None, typer.Option("--from", help="From this time on, in UTC.")
    ] = None,
    until: Annotated[
        datetime | None, typer.Option("--to", help="Before this time, in UTC.")
    ] = None,
    artifact: Annotated[
        str | None,
        typer.Option(
            help="Write them as Parquet, with feedback, as the next version of window/NAME."
        ),
    ] = None,
) -> None:
    """Write interactions as JSON Lines to standard output, newest first, or as an artifact."""
    from datetime import UTC

    import orjson

    times = {
        name: None if moment is None else moment.replace(tzinfo=UTC)
        for name, moment in (("since", since), ("until", until))
    }
    query = _query(model=model, tag=tag, **times)
    with opened() as parts:
        if artifact is not None:
            from monitoring import interaction_exports

            made = interaction_exports.export(parts.database, parts.artifacts, query, artifact)
            say(str(made))
            return
        after = None
        while found := parts.interactions.find(query, limit=EXPORT_BATCH, after=after):
            for item in found:
                typer.echo(orjson.dumps(_row(item)).decode())
            after = found[-1].id


@app.command("delete")
def delete(
    before_days: Annotated[
        float, typer.Option(min=0, help="Those that are older than so many days; 0 is all.")
    ],
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Delete old interactions; this cannot be undone."""
    from datetime import UTC, timedelta

    if not yes:
        typer.confirm(f"Delete the interactions older than {before_days:g} days?", abort=True)
    with opened() as parts:
        until = datetime.now(UTC) - timedelta(days=before_days)
        count = parts.interactions.delete(_query(until=until))
    if json:
        print_json({"deleted": count})
    else:
        say(f"Deleted {count}")


def _query(**wanted: Any) -> Query:
    from monitoring.interactions import Query

    return Query(**wanted)


def _row(item: Interaction) -> dict[str, Any]:
    from service.schemas.interactions import InteractionOut

    row = InteractionOut.of(item).model_dump()
    return {**row, "tokens": item.usage.total_tokens}


def _cell(value: Any) -> str:
    if hasattr(value, "strftime"):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    return f"{value:.3g}" if isinstance(value, float) else str("" if value is None else value)

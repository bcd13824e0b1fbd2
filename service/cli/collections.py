"""`ragstone collections`: list, show, create, rename and delete collections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli import builds, documents, erasures
from service.cli.output import Json, Yes, note, print_json, print_table, say
from service.cli.session import opened

if TYPE_CHECKING:
    from retrieval.collections import Collection
    from service.wiring import Components

PAGE = 1000
Name = Annotated[str, typer.Argument(help="Name or id of the collection.")]

app = typer.Typer(
    help="List, show, create, rename, delete collections.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(documents.app, name="documents")


@app.command("list")
def list_collections(json: Json = False) -> None:
    """List the collections, oldest first."""
    with opened() as parts:
        rows = [_row(parts, item) for item in every_collection(parts)]
    if json:
        print_json(rows)
    elif rows:
        columns = ("name", "documents", "failed", "chunks", "bytes", "id")
        print_table(
            columns, [[row[column] for column in columns] for row in rows], numbers=columns[1:5]
        )
    else:
        note("No collections; `ragstone ingest PATH` makes one")


@app.command("show")
def show(name: Name, json: Json = False) -> None:
    """Show one collection: what it holds and what it was built with."""
    with opened() as parts:
        row = _row(parts, parts.collections.get(name))
    if json:
        print_json(row)
        return
    for key, value in {**row, **row["recipe"]}.items():
        if key != "recipe":
            say(f"{key:<22}{value}")


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(help="A new name.")],
    chunk_tokens: Annotated[
        int | None,
        typer.Option(min=16, help="Longest chunk, in tokens of the embedder; else the setting."),
    ] = None,
    overlap_tokens: Annotated[
        int | None, typer.Option(min=0, help="Tokens that neighbours share; else the setting.")
    ] = None,
    tenant: Annotated[
        str | None, typer.Option(help="Holds this tenant's documents only, and is its own.")
    ] = None,
    json: Json = False,
) -> None:
    """Create an empty collection, to be built with the embedder of the settings."""
    with opened() as parts:
        recipe = parts.recipe(chunk_tokens=chunk_tokens, overlap_tokens=overlap_tokens)
        row = _row(parts, parts.collections.create(name, recipe, tenant=tenant))
    if json:
        print_json(row)
    else:
        say(f"Created {row['name']!r} ({row['id']})")


@app.command("rename")
def rename(
    name: Name,
    new_name: Annotated[str, typer.Argument(help="The name it shall have.")],
    json: Json = False,
) -> None:
    """Give a collection another name; its id stays."""
    with opened() as parts:
        row = _row(parts, parts.collections.update(name, new_name=new_name))
    if json:
        print_json(row)
    else:
        say(f"Renamed {name!r} to {row['name']!r}")


@app.command("delete")
def delete(name: Name, yes: Yes = False, json: Json = False) -> None:
    """Delete a collection with its documents, chunks, vectors and index; uploaded files stay."""
    from retrieval.receipts import Asked
    from service.work.erasing import TERMINAL

    with opened() as parts:
        row = _row(parts, parts.collections.get(name))
        if not yes:
            question = f"Delete {row['name']!r} with {row['documents']} documents?"
            typer.confirm(question, abort=True, err=True)
        parts.delete_collection(row["id"], asked=Asked(TERMINAL, with_files=False))
    if json:
        print_json({"id": row["id"], "name": row["name"], "deleted": True})
    else:
        say(f"Deleted {row['name']!r}")


builds.add_to(app)
erasures.add_to(app)


def every_collection(parts: Components) -> list[Collection]:
    """Return all collections, oldest first."""
    found: list[Collection] = []
    after = None
    while True:
        page = parts.collections.list(limit=PAGE, after=after, descending=False)
        found += page.items
        if not page.has_more:
            return found
        after = found[-1].public_id


def _row(parts: Components, item: Collection) -> dict[str, Any]:
    counts = parts.collections.statistics(item.id)
    return {
        "id": item.public_id,
        "name": item.name,
        "documents": counts.documents,
        "in_progress": counts.in_progress,
        "completed": counts.completed,
        "failed": counts.failed,
        "chunks": counts.chunks,
        "bytes": counts.bytes,
        "attributes": item.attributes,
        "tenant": item.tenant,
        "created_at": item.created_at,
        "last_active_at": item.last_active_at,
        "recipe": item.recipe.as_dict(),
    }

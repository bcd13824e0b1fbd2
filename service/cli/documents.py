"""`ragstone collections documents`: list, share and delete the documents of a collection."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.output import (
    Allow,
    CollectionName,
    Json,
    Tenant,
    Yes,
    place,
    print_json,
    print_table,
    say,
)
from service.cli.session import opened

if TYPE_CHECKING:
    from collections.abc import Iterator

    from retrieval.collections import Collection
    from retrieval.documents import StoredDocument
    from service.wiring import Components

PAGE = 1000

app = typer.Typer(
    help="List, share and delete the documents of a collection.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("list")
def list_documents(
    collection: CollectionName = "default",
    limit: Annotated[int, typer.Option(min=1, help="At most this many.")] = 100,
    json: Json = False,
) -> None:
    """List documents, the latest first."""
    from itertools import islice

    with opened() as parts:
        within = parts.collections.get(collection)
        rows = [_row(item) for item in islice(_every(parts, within), limit)]
        total = parts.collections.statistics(within.id).documents
    if json:
        print_json(rows)
        return
    columns = ("id", "version", "status", "chunks", "characters", "source")
    cells = [[row[name] for name in columns[:-1]] + [place(row["source"])] for row in rows]
    print_table(columns, cells, numbers=("version", "chunks", "characters"))
    if len(rows) < total:
        say(f"{len(rows)} of {total}; --limit shows more")


@app.command("delete")
def delete(
    names: Annotated[
        list[str], typer.Argument(metavar="DOCUMENT...", help="Document ids, or paths.")
    ],
    collection: CollectionName = "default",
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Delete documents: their text, chunks and vectors; their bytes unless they were uploaded."""
    from retrieval.receipts import Asked
    from service.work.erasing import TERMINAL

    with opened() as parts:
        within = parts.collections.get(collection)
        chosen = [find(parts, within, name) for name in names]
        if not yes:
            listed = ", ".join(place(item.source) for item in chosen)
            typer.confirm(f"Delete {listed} from {within.name!r}?", abort=True, err=True)
        parts.erasure.erase(
            parts.documents,
            within,
            [item.file_id for item in chosen],
            asked=Asked(TERMINAL, with_files=False),
        )
        view = parts.views.get(within)
        view.refresh()
        view.checkpoint(at_least=1)  # the old one still holds the text
    if json:
        print_json(
            [{"id": item.file_id, "source": item.source, "deleted": True} for item in chosen]
        )
    else:
        say(f"Deleted {len(chosen)} from {within.name!r}")


@app.command("share")
def share(
    names: Annotated[
        list[str], typer.Argument(metavar="DOCUMENT...", help="Document ids, or paths.")
    ],
    collection: CollectionName = "default",
    tenant: Tenant = None,
    allow: Allow = None,
    json: Json = False,
) -> None:
    """Say whose documents are and who may read them; nothing is embedded again.

    Without --tenant they stay whose they are; without --allow everyone of the tenant may read them.
    """
    from infra.contracts import Readers

    with opened() as parts:
        within = parts.collections.get(collection)
        chosen = [find(parts, within, name) for name in names]
        readers = Readers(tenant, tuple(allow or ()))
        shared = [parts.documents.update(within, item.file_id, readers=readers) for item in chosen]
    if json:
        print_json([_row(item) for item in shared])
    else:
        for item in shared:
            say(
                f"{place(item.source)}: {item.tenant or 'operator'}, {', '.join(item.allow) or '-'}"
            )


def find(parts: Components, within: Collection, name: str) -> StoredDocument:
    """Return the document of an id, a source or a path."""
    from infra.errors import NotFound

    if name.startswith("file-"):
        return parts.documents.get(within, name)
    known = {item.source: item for item in _every(parts, within)}
    for source in (name, Path(name).resolve().as_uri()):
        if source in known:
            return known[source]
    raise NotFound("document", name, among=[place(source) for source in known])


def _every(parts: Components, within: Collection) -> Iterator[StoredDocument]:
    after = None
    while True:
        page = parts.documents.list(within, limit=PAGE, after=after)
        yield from page.items
        if not page.has_more:
            return
        after = page.items[-1].file_id


def _row(item: StoredDocument) -> dict[str, Any]:
    return {
        "id": item.file_id,
        "source": item.source,
        "filename": item.filename,
        "title": item.title,
        "version": item.version,
        "status": item.status,
        "error": {"code": item.error_code, "message": item.error_message}
        if item.error_code
        else None,
        "media_type": item.media_type,
        "metadata": item.metadata,
        "tenant": item.tenant,
        "allow": item.allow,
        "characters": item.characters,
        "bytes": item.bytes,
        "chunks": item.chunks,
        "digest": item.digest,
        "created_at": item.created_at,
        "updated_at": item.updated_at,
    }

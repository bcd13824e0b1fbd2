"""`ragstone collections erase`, `compact` and `receipts`: deletion that leaves no byte behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.output import Json, Yes, note, print_json, print_table, say, waiting
from service.cli.session import opened

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retrieval.collections import Collection
    from service.wiring import Components

Name = Annotated[str, typer.Argument(metavar="COLLECTION", help="Name or id.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("erase")(erase)
    app.command("compact")(compact)
    app.command("receipts")(receipts)


def erase(
    collection: Name,
    documents: Annotated[
        list[str] | None, typer.Argument(metavar="[DOCUMENT]...", help="Document ids, or paths.")
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE|JSON", help="All that match; all of them, if repeated."),
    ] = None,
    tenant: Annotated[str | None, typer.Option(help="All of this tenant.")] = None,
    snapshots: Annotated[
        bool, typer.Option("--snapshots", help="Delete the snapshots that hold them, too.")
    ] = False,
    no_compact: Annotated[
        bool, typer.Option("--no-compact", help="Leave the compaction for later.")
    ] = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Remove documents for good, uploaded files included, and print the receipt.

    Rows, vectors, bytes and what other stores quote go at once; index files and the database are
    then written anew, so that no byte of the data folder holds them. Snapshots that do are named.
    """
    from service.work import erasing

    with opened() as parts:
        whole = parts.collections.get(collection)
        chosen = _chosen(parts, whole, documents or (), where=where or (), tenant=tenant)
        if not yes:
            question = f"Erase {len(chosen)} documents of {whole.name!r} for good?"
            typer.confirm(question, abort=True, err=True)
        with waiting("erasing"):
            receipt = erasing.erase(
                parts,
                whole,
                chosen,
                by=erasing.TERMINAL,
                snapshots=snapshots,
                compact=not no_compact,
            )
        shown = erasing.shown(parts, receipt)
    _tell(shown, json=json)


def compact(name: Name, json: Json = False) -> None:
    """Write index and database anew, so that no byte of them holds what was deleted.

    Searches and writes go on meanwhile. It needs room for a second copy of both.
    """
    with opened() as parts:
        whole = parts.collections.get(name)
        with waiting("compacting"):
            done = parts.compactor.compact(whole)
    if json:
        print_json(done.as_dict())
        return
    say(f"Compacted {whole.name!r}: {len(done.builds)} indexes, {len(done.receipts)} erasures")
    for line in done.left:
        note(line)


def receipts(
    receipt: Annotated[
        str | None, typer.Argument(metavar="[RECEIPT]", help="One receipt; else all.")
    ] = None,
    collection: Annotated[
        str | None, typer.Option("--collection", "-c", metavar="NAME", help="Of this one only.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most this many.")] = 100,
    json: Json = False,
) -> None:
    """List the receipts of erasures, or show one with the snapshots that still hold documents."""
    from service.work import erasing

    with opened() as parts:
        if receipt is not None:
            _tell(erasing.shown(parts, parts.erasure.receipts.get(receipt)), json=json)
            return
        chosen = parts.collections.get(collection).public_id if collection else None
        page = parts.erasure.receipts.list(collection=chosen, limit=limit)
    if json:
        print_json([each.as_dict() for each in page.items])
        return
    columns = ("id", "state", "documents", "collection", "by", "at")
    rows: list[list[object]] = [
        [
            each.id,
            each.state,
            len(each.documents),
            each.collection_name,
            each.requested_by,
            f"{each.created_at:%Y-%m-%d %H:%M}",
        ]
        for each in page.items
    ]
    print_table(columns, rows, numbers=("documents",))


def _chosen(
    parts: Components,
    whole: Collection,
    documents: Sequence[str],
    *,
    where: Sequence[str],
    tenant: str | None,
) -> Sequence[str]:
    from service.cli.documents import find
    from service.cli.search import parse_filters
    from service.work import erasing

    named = [find(parts, whole, name).file_id for name in documents]
    return erasing.choose(parts, whole, documents=named, where=parse_filters(where), tenant=tenant)


def _tell(receipt: dict[str, Any], *, json: bool) -> None:
    if json:
        print_json(receipt)
        return
    removed = receipt["removed"]
    say(f"{receipt['id']}: {receipt['state']}")
    counts = {name: value for name, value in removed.items() if name != "with_files"}
    for name, value in counts.items():
        say(f"{name:<12}{value:>9}")
    for document in receipt["documents"]:
        say(f"  {document['id']}  {document['digest']}")
    for line in receipt["compaction"].get("left", ()):
        note(line)
    if receipt["snapshots"]:
        say("Snapshots that hold them; --snapshots deletes them with an erasure:")
        for reference in receipt["snapshots"]:
            say(f"  {reference}")

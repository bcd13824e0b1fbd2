"""`ragstone artifacts`: datasets, models and other trees of files, put, found and checked out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from service.cli import aliases, upkeep
from service.cli.artifact_output import as_dict, cell, print_tree, version_row
from service.cli.output import Json, note, print_json, print_table, say
from service.cli.session import opened

SHOWN_FILES = 20
"""Of an artifact; `--files` shows all."""
Ref = Annotated[
    str, typer.Argument(metavar="REFERENCE", help="Such as dataset/faq, @v3 or @production.")
]

app = typer.Typer(
    help="Put, find, tag, compare, verify versioned trees of files.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("list")
def list_artifacts(
    of: Annotated[
        str | None, typer.Argument(metavar="[KIND|NAME]", help="A kind, or a name's versions.")
    ] = None,
    json: Json = False,
) -> None:
    """List the newest version of every name, or all versions of one name."""
    with opened() as parts:
        if of is not None and "/" in of:
            rows = [version_row(each) for each in parts.artifacts.versions(of)]
        else:
            rows = [
                version_row(parts.artifacts.versions(f"{each.kind}/{each.name}")[0])
                for each in parts.artifacts.names(of)
            ]
    if json:
        print_json(rows)
    elif rows:
        columns = ("reference", "aliases", "created_at", "expires_at", "job", "digest")
        print_table(columns, [[cell(row[name]) for name in columns] for row in rows])
    else:
        note("No artifacts; `ragstone artifacts put PATH KIND/NAME` stores one")


@app.command("show")
def show(
    reference: Ref,
    files: Annotated[bool, typer.Option("--files", help="List every file.")] = False,
    json: Json = False,
) -> None:
    """Show one artifact: its digest, metadata, parents and files."""
    with opened() as parts:
        found = parts.artifacts.find(reference)
        manifest = parts.artifacts.resolve(str(found))
        names = parts.artifacts.lineage(str(found), depth=1).names
    row = as_dict(found, manifest)
    if json:
        print_json(row)
        return
    for key in ("reference", "digest", "kind", "bytes"):
        say(f"{key:<12}{row[key]}")
    say(f"{'files':<12}{len(manifest.entries)}")
    for key, value in manifest.metadata.items():
        say(f"  {key} = {value!r}")
    for parent in manifest.parents:
        known = ", ".join(names.get(parent.digest, ())) or parent.digest
        say(f"{'from':<12}{parent.role}: {known}")
    shown = manifest.entries if files else manifest.entries[:SHOWN_FILES]
    for entry in shown:
        say(f"  {entry.size:>12}  {entry.path}")
    if len(shown) < len(manifest.entries):
        say(f"  and {len(manifest.entries) - len(shown)} more; --files lists all")


@app.command("put")
def put(
    source: Annotated[Path, typer.Argument(exists=True, help="A folder, or one file.")],
    name: Annotated[str, typer.Argument(metavar="KIND/NAME", help="Such as dataset/faq.")],
    metadata: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Kept with it; may be repeated. JSON or text."),
    ] = None,
    parents: Annotated[
        list[str] | None,
        typer.Option("--from", metavar="ROLE=REFERENCE", help="What it was made from."),
    ] = None,
    tag: Annotated[str | None, typer.Option(help="An alias to point at it.")] = None,
    json: Json = False,
) -> None:
    """Store a folder as the next version of a name; unchanged content gets no new number."""
    from infra.artifacts.publishing import Made
    from service.cli.job_output import parse_arguments
    from service.cli.transfer import put_watched

    pairs = [tuple(pair.split("=", 1)) for pair in parents or []]
    if any(len(pair) != 2 for pair in pairs):
        raise typer.BadParameter("--from is of the form ROLE=REFERENCE")
    made = Made(metadata=parse_arguments(metadata or []), parents=[(a, b) for a, b in pairs])
    with opened() as parts:
        stored = put_watched(parts, source, name=name, made=made)
        if tag is not None:
            parts.artifacts.tag(str(stored), tag)
        row = as_dict(stored, parts.artifacts.resolve(str(stored)))
    if json:
        print_json(row)
    else:
        say(f"{stored}  {len(row['files'])} files, {row['bytes']} bytes  {stored.digest}")


@app.command("checkout")
def checkout(
    reference: Annotated[
        str, typer.Argument(metavar="REFERENCE", help="A reference, or a file of `export`.")
    ],
    destination: Annotated[Path, typer.Argument(help="A folder that is not there, or empty.")],
    mode: Annotated[
        Literal["hardlink", "reflink", "copy"],
        typer.Option(help="Linked files are read-only and take no room."),
    ] = "hardlink",
    verify: Annotated[
        bool | None,
        typer.Option("--verify/--no-verify", help="Hash every file; by default of models."),
    ] = None,
    json: Json = False,
) -> None:
    """Lay the files of an artifact out in a folder; all of them or none."""
    from infra.artifacts import pointers
    from service.cli.transfer import checkout_watched

    with opened() as parts:
        wanted = pointers.read(Path(reference)) if pointers.is_one(reference) else reference
        found = parts.artifacts.find(wanted)
        checkout_watched(parts, str(found), destination, mode=mode, verify=verify)
    if json:
        print_json({"reference": str(found), "digest": found.digest, "folder": str(destination)})
    else:
        say(f"{found} is in {destination}")


@app.command("export")
def export(
    reference: Ref,
    file: Annotated[Path, typer.Argument(help="Where to write the pointer, for git to keep.")],
) -> None:
    """Write a small text file that names exactly this content; `checkout` takes it again."""
    from infra.artifacts import pointers

    with opened() as parts:
        found = parts.artifacts.find(reference)
        pointers.write(file, found, parts.artifacts.resolve(str(found)))
    say(f"{file} points at {found}")


@app.command("diff")
def diff(before: Ref, after: Ref, json: Json = False) -> None:
    """Print what changed between two artifacts, file by file."""
    with opened() as parts:
        found = parts.artifacts.diff(before, after)
    if json:
        print_json(found)
        return
    for sign, paths in (("+", found.added), ("-", found.removed), ("~", found.changed)):
        for path in paths:
            say(f"{sign} {path}")
    for key in found.metadata:
        say(f"~ metadata: {key}")
    say(
        f"{len(found.added)} added, {len(found.removed)} removed, {len(found.changed)} changed, "
        f"{found.unchanged} unchanged"
    )


@app.command("lineage")
def lineage(
    reference: Ref,
    down: Annotated[
        bool, typer.Option("--down", help="What was made from it, not what it was made from.")
    ] = False,
    depth: Annotated[int, typer.Option(min=1, max=1000, help="Steps to follow.")] = 10,
    json: Json = False,
) -> None:
    """Print what an artifact was made from."""
    with opened() as parts:
        start = parts.artifacts.find(reference).digest
        found = parts.artifacts.lineage(reference, up=not down, depth=depth)
    if json:
        print_json({"names": found.names, "edges": list(found.edges)})
    else:
        print_tree(found, start, down=down)


for _name, _command in (
    ("tag", aliases.tag),
    ("untag", aliases.untag),
    ("history", aliases.history),
    ("rollback", aliases.rollback),
    ("verify", upkeep.verify),
    ("repair", upkeep.repair),
    ("gc", upkeep.gc),
    ("sync", upkeep.sync),
    ("expire", upkeep.expire),
):
    app.command(_name)(_command)

"""`ragstone adapters`: LoRA adapters in the store, and where the routes have them served."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.output import Json, note, print_json, print_table, say
from service.cli.session import opened

if TYPE_CHECKING:
    from service.gateway.adapters import Place

app = typer.Typer(
    help="List LoRA adapters, and see where they are served.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("list")
def list_adapters(json: Json = False) -> None:
    """List the adapters in the artifact store, with their versions and aliases."""
    with opened() as parts:
        rows = [
            {
                "adapter": f"{name.kind}/{name.name}",
                "version": version.reference.version,
                "aliases": list(version.aliases),
                "created_at": version.created_at,
                "digest": version.reference.digest,
            }
            for name in parts.artifacts.names("adapter")
            for version in parts.artifacts.versions(f"{name.kind}/{name.name}")
        ]
    if json:
        print_json(rows)
    elif rows:
        columns = ("adapter", "version", "aliases", "created_at", "digest")
        print_table(columns, [[_cell(row[column]) for column in columns] for row in rows])
    else:
        note("No adapters; store one with `ragstone artifacts put FOLDER adapter/NAME`")


@app.command("check")
def check(
    reference: Annotated[str, typer.Argument(help="Such as adapter/support@production.")],
    engine: Annotated[str, typer.Argument(help="An engine's name in the settings.")],
    json: Json = False,
) -> None:
    """Say whether an engine could serve an adapter, without loading it there."""
    from infra.errors import NotFound
    from service.gateway.adapter_files import check, fetch
    from service.gateway.adapter_places import base_of

    with opened() as parts:
        settings = parts.settings.engines.get(engine)
        if settings is None:
            raise NotFound("engine", engine, among=parts.settings.engines, are_few=True)
        adapter = fetch(parts.artifacts, reference, parts.settings.data_folder / "adapters")
        check(adapter, base_of(settings))
    if json:
        print_json({"adapter": adapter.name, "rank": adapter.rank, "base": adapter.base_name})
    else:
        say(f"{engine} can serve {reference}: rank {adapter.rank}, made for {adapter.base_name!r}")


@app.command("status")
def status(json: Json = False) -> None:
    """Ask the replicas which of the adapters that routes lead to they have loaded."""
    import asyncio

    with opened() as parts:
        rows = asyncio.run(_served(parts.adapter_places(), parts.artifacts))
    if json:
        print_json(rows)
    elif rows:
        columns = ("upstream", "adapter", "version", "replica", "state")
        print_table(columns, [[row[column] for column in columns] for row in rows])
    else:
        note("No route leads to an adapter; see docs/how-to/serve-adapters.md")


async def _served(places: Any, artifacts: Any) -> list[dict[str, Any]]:
    rows = []
    for upstream, place in places.items():
        for reference in sorted(place.references):
            rows += await _rows(upstream, place, reference, artifacts)
        for host in place.hosts:
            await host.close()
    return rows


async def _rows(
    upstream: str, place: Place, reference: str, artifacts: Any
) -> list[dict[str, Any]]:
    from infra.errors import RagstoneError
    from service.gateway.adapter_files import served_as

    row = {"upstream": upstream, "adapter": reference, "version": None, "replica": None}
    try:
        name = served_as(artifacts.find(reference))
    except RagstoneError as error:
        return [{**row, "state": error.message}]
    rows = []
    for host in place.hosts:
        try:
            state = "loaded" if name in (await host.models()).adapters else "not loaded"
        except RagstoneError as error:
            state = error.message
        rows.append({**row, "version": name, "replica": host.address, "state": state})
    return rows or [{**row, "version": name, "state": "no replica runs"}]


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(value)
    return f"{value:%Y-%m-%d %H:%M}" if hasattr(value, "strftime") else str(value)

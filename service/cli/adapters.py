"""`ragstone adapters`: LoRA adapters in the store, and where the routes have them served."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.output import Json, note, print_json, print_table, say
from service.cli.session import opened

if TYPE_CHECKING:
    from service.gateway.adapter_files import Adapter, Base
    from service.gateway.adapter_hosts import Models
    from service.gateway.adapters import Place
    from service.wiring import Components

ELSEWHERE = "in the service's own process, whose log tells"

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
    """Ask the replicas which of the adapters that routes lead to they have loaded, or why not."""
    import asyncio

    with opened() as parts:
        rows = asyncio.run(_served(parts))
    if json:
        print_json(rows)
    elif rows:
        columns = ("upstream", "adapter", "version", "replica", "state")
        print_table(columns, [[row[column] for column in columns] for row in rows])
    else:
        note("No route leads to an adapter; see docs/how-to/serve-adapters.md")


@app.command("compare")
def compare(
    route: Annotated[str, typer.Argument(help="Of `[gateway.canaries.ROUTE]`.")],
    decide: Annotated[
        bool,
        typer.Option("--decide", help="Promote or roll back, where rules and settings say so."),
    ] = False,
    json: Json = False,
) -> None:
    """Compare a canary with the version in use, by what the traffic of its route saw."""
    from service.cli.comparisons import print_measures
    from service.models import adapter_canaries

    with opened() as parts:
        act = adapter_canaries.decide if decide else adapter_canaries.compare
        found = act(parts, route)
    if json:
        print_json(adapter_canaries.told(found))
        return
    print_measures(found.measures)
    columns = ("version", "requests", "callers", "failures", "median s", "p95 s", "quality")
    rows = [
        [each.version, each.requests, each.callers, *(
            "-" if value is None else f"{value:.4g}"
            for value in (each.failures, each.median_seconds, each.p95_seconds, each.quality)
        )]
        for each in (found.live, found.canary)
    ]  # fmt: skip
    print_table(columns, rows)
    say(f"{found.done or found.decision}: {found.reason}")
    if found.evidence is not None:
        note(f"evidence {found.evidence}")


async def _served(parts: Components) -> list[dict[str, Any]]:
    from service.gateway.adapter_places import Places

    gateway = parts.settings.gateway
    places = Places(lambda: gateway, engines=parts.engines)
    rows = []
    try:
        for name, place in places().items():
            upstream = gateway.upstreams[name]
            is_ours = upstream.engine is None and not upstream.urls
            for reference in sorted(place.references):
                row = {"upstream": name, "adapter": reference, "version": None, "replica": None}
                nobody = ELSEWHERE if is_ours else "no replica runs"
                rows += [
                    {**row, **found} for found in await _found(parts, place, reference, nobody)
                ]
    finally:
        await places.close()
    return rows


async def _found(
    parts: Components, place: Place, reference: str, nobody: str
) -> list[dict[str, Any]]:
    """Return version, replica and state, for each replica."""
    from infra.errors import RagstoneError
    from service.gateway.adapter_files import look_into

    try:
        adapter = look_into(parts.artifacts, reference, parts.settings.data_folder / "adapters")
    except RagstoneError as error:
        return [{"state": error.message}]
    rows = []
    for host in place.hosts:
        try:
            state = _state(adapter, place.base, await host.models())
        except RagstoneError as error:
            state = error.message
        rows.append({"version": adapter.name, "replica": host.address, "state": state})
    return rows or [{"version": adapter.name, "state": nobody}]


def _state(adapter: Adapter, base: Base, models: Models) -> str:
    """Say whether a replica has an adapter.

    Raises:
        InvalidRequest: it cannot have it, because the adapter is for another model.
    """
    from dataclasses import replace

    from service.gateway.adapter_files import check

    if adapter.name in models.adapters:
        return "loaded"
    check(adapter, replace(base, names=base.names | models.base))
    stem = adapter.name.rpartition("@")[0] + "@"
    others = sorted(name for name in models.adapters if name.startswith(stem))
    return f"not loaded, but {', '.join(others)}" if others else "not loaded"


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(value)
    return f"{value:%Y-%m-%d %H:%M}" if hasattr(value, "strftime") else str(value)

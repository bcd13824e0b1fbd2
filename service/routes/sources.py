"""Sources: list them, make one of an address that the operator allows, run it, remove it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from infra.jobs.schedules import Schedule
from retrieval.source_definitions import Definition, refuse_secrets
from service import syncing
from service.bodies import StrictRoute
from service.dependencies import Operator, Parts
from service.remote_sources import check_remote
from service.schemas.jobs import JobOut
from service.schemas.shared import OPENAI_ERRORS, Deleted, readers_of
from service.schemas.sources import CreateSource, RunSource, SourceList, SourceOut
from service.wiring import Components

router = APIRouter(
    prefix="/v1/sources",
    tags=["sources"],
    route_class=StrictRoute,
    responses=OPENAI_ERRORS,
    dependencies=[Operator],
)
Name = Annotated[str, Path(max_length=100)]


@router.get("")
def list_sources(components: Parts) -> SourceList:
    """List the named sources."""
    return SourceList(data=[_show(components, each) for each in components.sources.list()])


@router.post("")
def create(body: CreateSource, components: Parts) -> SourceOut:
    """Name a source; with `every` it is synced by the clock."""
    spec = check_remote(body.source, body.options, allowed=components.settings.sources.remote)
    refuse_secrets(spec)
    cron = syncing.cron_of(body.every) if body.every else None
    into = components.collections.get(body.collection)
    origin = syncing.connect(components, syncing.Wanted(spec, into, body.options))
    definition = components.sources.add(
        body.name,
        spec,
        into,
        identity=origin.identity,
        options=body.options,
        metadata=body.metadata,
        readers=readers_of(body.tenant, body.allow),
    )
    if cron:
        components.jobs.schedules.put(
            Schedule(
                syncing.schedule_name(body.name),
                syncing.SYNC,
                cron,
                arguments=syncing.job_arguments(definition),
            )
        )
    return _show(components, definition)


@router.get("/{name}")
def get(name: Name, components: Parts) -> SourceOut:
    """Return one source."""
    return _show(components, components.sources.get(name))


@router.post("/{name}/run")
def run(name: Name, body: RunSource, components: Parts) -> JobOut:
    """Have a source synced now; the job tells how it goes."""
    definition = components.sources.get(name)
    return JobOut.of(syncing.start(components, definition, allow_deletes=body.allow_deletes))


@router.delete("/{name}")
def delete(
    name: Name,
    components: Parts,
    documents: Annotated[bool, Query(description="Remove what it brought in, too")] = False,
) -> Deleted:
    """Forget a source and its schedule; its documents stay unless asked otherwise."""
    syncing.forget(components, name, documents=documents)
    return Deleted(id=name, object="source.deleted")


def _show(components: Components, definition: Definition) -> SourceOut:
    wanted = syncing.schedule_name(definition.name)
    schedules = {each.name: each.cron for each in components.jobs.schedules.list()}
    return SourceOut.of(definition, cron=schedules.get(wanted))

"""Sources: list them, make one of an address that the operator allows, run it, remove it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from infra.errors import NotFound
from infra.jobs.schedules import Schedule
from retrieval.source_definitions import Definition, refuse_secrets
from service.bodies import StrictRoute
from service.callers import Caller
from service.dependencies import Asking, Operator, Own, Parts
from service.schemas.jobs import JobOut
from service.schemas.shared import OPENAI_ERRORS, Deleted, readers_of
from service.schemas.sources import CreateSource, RunSource, SourceList, SourceOut
from service.wiring import Components
from service.work import syncing
from service.work.remote_sources import check_remote

router = APIRouter(
    prefix="/v1/sources",
    tags=["sources"],
    route_class=StrictRoute,
    responses=OPENAI_ERRORS,
    dependencies=[Operator],
)
Name = Annotated[str, Path(max_length=100)]


@router.get("")
def list_sources(components: Parts, caller: Asking) -> SourceList:
    """List the named sources of the collections that the key may see."""
    found = [each for each in components.sources.list() if caller.may_see(each.collection_name)]
    return SourceList(data=[_show(components, each) for each in found])


@router.post("")
def create(body: CreateSource, components: Parts, seen: Own) -> SourceOut:
    """Name a source; with `every` it is synced by the clock."""
    spec = check_remote(body.source, body.options, allowed=components.settings.sources.remote)
    refuse_secrets(spec)
    cron = syncing.cron_of(body.every) if body.every else None
    into = seen.collections.get(body.collection)
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
def get(name: Name, components: Parts, caller: Asking) -> SourceOut:
    """Return one source."""
    return _show(components, _find(components, caller, name))


@router.post("/{name}/run")
def run(name: Name, body: RunSource, components: Parts, caller: Asking) -> JobOut:
    """Have a source synced now; the job tells how it goes."""
    definition = _find(components, caller, name)
    return JobOut.of(syncing.start(components, definition, allow_deletes=body.allow_deletes))


@router.delete("/{name}")
def delete(
    name: Name,
    components: Parts,
    caller: Asking,
    documents: Annotated[bool, Query(description="Remove what it brought in, too")] = False,
) -> Deleted:
    """Forget a source and its schedule; its documents stay unless asked otherwise."""
    _find(components, caller, name)
    syncing.forget(components, name, documents=documents)
    return Deleted(id=name, object="source.deleted")


def _find(components: Components, caller: Caller, name: str) -> Definition:
    found = components.sources.get(name)
    if not caller.may_see(found.collection_name):
        raise NotFound("source", name)
    return found


def _show(components: Components, definition: Definition) -> SourceOut:
    wanted = syncing.schedule_name(definition.name)
    schedules = {each.name: each.cron for each in components.jobs.schedules.list()}
    return SourceOut.of(definition, cron=schedules.get(wanted))

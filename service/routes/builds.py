"""Builds of a collection: list, rebuild, swap, roll back, retire; snapshots as jobs."""

from __future__ import annotations

from fastapi import APIRouter

from service.bodies import StrictRoute
from service.dependencies import Operator, Own, Parts
from service.schemas.builds import (
    BuildList,
    BuildOut,
    EventList,
    EventOut,
    Rebuild,
    RebuildOut,
    RestoreSnapshot,
    RollBack,
    SwapBuild,
    SwapOut,
    TakeSnapshot,
)
from service.schemas.jobs import JobOut
from service.schemas.shared import OPENAI_ERRORS
from service.work import building, snapshots

router = APIRouter(
    prefix="/v1/collections",
    tags=["builds"],
    route_class=StrictRoute,
    responses=OPENAI_ERRORS,
    dependencies=[Operator],
)


@router.get("/{collection_id}/builds")
def list_builds(collection_id: str, components: Parts, seen: Own) -> BuildList:
    """List the builds, oldest first, those that are gone included."""
    whole = seen.collections.get(collection_id)
    builds = components.builds.list(whole)
    return BuildList(data=[BuildOut(**building.row(components, each)) for each in builds])


@router.post("/{collection_id}/builds")
def rebuild(collection_id: str, body: Rebuild, components: Parts, seen: Own) -> RebuildOut:
    """Begin a build, or go on with the one that has this recipe, as a job."""
    whole = seen.collections.get(collection_id)
    recipe = components.recipe(
        chunk_tokens=body.chunk_tokens, overlap_tokens=body.chunk_overlap_tokens
    )
    begun, job = building.rebuild(components, whole, recipe, swap=body.swap)
    return RebuildOut(build=BuildOut(**building.row(components, begun)), job=JobOut.of(job))


@router.get("/{collection_id}/builds/history")
def history(collection_id: str, components: Parts, seen: Own) -> EventList:
    """Return what happened to the builds, oldest first."""
    whole = seen.collections.get(collection_id)
    return EventList(data=[EventOut.of(event) for event in components.builds.history(whole)])


@router.post("/{collection_id}/builds/swap")
def swap(collection_id: str, body: SwapBuild, components: Parts, seen: Own) -> SwapOut:
    """Let the new build answer; the one that did stands by, in step, for a rollback."""
    whole = seen.collections.get(collection_id)
    evaluate = None if body.force else components.evaluate
    swapped = components.builds.swap(whole, expect=body.expect, evaluate=evaluate)
    return SwapOut(**building.describe(swapped))


@router.post("/{collection_id}/builds/rollback")
def rollback(collection_id: str, body: RollBack, components: Parts, seen: Own) -> SwapOut:
    """Let the build that stands by answer again."""
    whole = seen.collections.get(collection_id)
    return SwapOut(**building.describe(components.builds.rollback(whole, expect=body.expect)))


@router.delete("/{collection_id}/builds/{build_id}")
def retire(collection_id: str, build_id: int, components: Parts, seen: Own) -> BuildOut:
    """Remove a build that does not answer, with its chunks, vectors and index."""
    whole = seen.collections.get(collection_id)
    return BuildOut(**building.row(components, components.builds.retire(whole, build_id)))


@router.post("/{collection_id}/snapshots")
def take_snapshot(collection_id: str, body: TakeSnapshot, components: Parts, seen: Own) -> JobOut:
    """Store the collection, as it is when the job runs, as an artifact."""
    whole = seen.collections.get(collection_id)
    arguments = {
        "collection": whole.public_id,
        "name": body.name,
        "with_files": body.with_files,
    }
    return JobOut.of(components.jobs.start(snapshots.TAKE, arguments))


@router.post("/restore")
def restore(body: RestoreSnapshot, components: Parts) -> JobOut:
    """Make a collection from a snapshot, as a job; nothing is embedded again."""
    components.artifacts.find(body.artifact)
    arguments = {"artifact": body.artifact, "name": body.name}
    return JobOut.of(components.jobs.start(snapshots.RESTORE, arguments))

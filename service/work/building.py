"""Rebuilding as a job: fills a build beside the live one and, if asked to, swaps it in."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

from infra.errors import (
    Conflict,
    InvalidConfiguration,
    InvalidRequest,
    MissingDependency,
    NotFound,
)
from infra.jobs.attempt import Attempt
from infra.jobs.definitions import Behaviour, Registry, Resources, Retries
from infra.jobs.records import Job
from service.work import lanes

if TYPE_CHECKING:
    from retrieval.build_state import Build
    from retrieval.builds import Swap, Verdict
    from retrieval.collections import Collection
    from retrieval.recipe import Recipe
    from service.wiring import Components

BUILD = "build"
RETRIES = Retries(
    attempts=10,
    first_delay_seconds=5.0,
    max_delay_seconds=600.0,
    crashes=100,
    permanent=(Conflict, InvalidConfiguration, InvalidRequest, MissingDependency, NotFound),
)
"""A disk that is full may have room later; a build that was retired does not come back."""


def define(registered: Registry, parts: Components) -> None:
    """Register the job of this file."""
    lane = lanes.of_collection(parts, lanes.BUILDING)

    # What the build holds is the memory of what was done: no steps are needed.
    @registered.job(
        BUILD,
        resources=Resources(cpu=1),
        retries=RETRIES,
        behaviour=Behaviour(steps=False, lane=lane, join=True),
    )
    def build(
        attempt: Attempt, *, collection: str, build: int, swap: bool = False
    ) -> dict[str, Any]:
        whole = parts.collections.get(collection)
        into = parts.builds.get(whole, build)
        if into.state == "building":
            fill(attempt, parts, whole, into)
        result: dict[str, Any] = {"build": build, "chunks": parts.builds.progress(into).chunks}
        if swap and into.state == "building":
            attempt.check()
            swapped = parts.builds.swap(whole, expect=whole.build_id, evaluate=parts.evaluate)
            result |= describe(swapped)
        return result


def rebuild(
    parts: Components, whole: Collection, recipe: Recipe, *, swap: bool = False
) -> tuple[Build, Job]:
    """Begin a build, or go on with it, as a job; raises as `Builds.start` does."""
    begun = parts.builds.start(whole, recipe)
    arguments = {"collection": whole.public_id, "build": begun.id, "swap": swap}
    return begun, parts.jobs.start(BUILD, arguments)


def fill(attempt: Attempt, parts: Components, whole: Collection, into: Build) -> None:
    """Add what a build lacks, and tell how far it is; goes on where it was."""
    from retrieval.building import Built

    start = parts.builds.progress(into)
    done, total = start.documents - start.missing, max(1, start.documents)
    with closing(parts.builder.fill(whole, into)) as events:
        for event in events:
            done += isinstance(event, Built)
            attempt.progress(min(1.0, done / total), f"{done} of {total} documents")


def describe(swapped: Swap) -> dict[str, Any]:
    """Return what a swap or rollback did, as JSON can hold it."""
    verdict = swapped.verdict
    return {
        "live": swapped.live.id,
        "standby": swapped.standby.id,
        "sequence": swapped.sequence,
        "verdict": None if verdict is None else described(verdict),
    }


def described(verdict: Verdict) -> dict[str, Any]:
    """Return a verdict as JSON can hold it."""
    return {
        "passed": verdict.passed,
        "reason": verdict.reason,
        "scores": dict(verdict.scores),
    }


def row(parts: Components, build: Build) -> dict[str, Any]:
    """Return a build as it is shown, with how far it is."""
    progress = parts.builds.progress(build)
    return {
        "id": build.id,
        "state": build.state,
        "documents": progress.documents - progress.missing,
        "missing": progress.missing if build.state in ("building", "live", "standby") else 0,
        "chunks": progress.chunks,
        "embedder": build.recipe.embedder,
        "dimension": build.recipe.dimension,
        "chunk_tokens": build.recipe.chunk_tokens,
        "chunk_overlap_tokens": build.recipe.chunk_overlap_tokens,
        "created_at": build.created_at,
    }

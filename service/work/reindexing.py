"""Re-indexes a collection as a job: its sources, then recipes, of which one that passes answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pydantic import Field, ValidationError

from infra.errors import Conflict, InvalidRequest
from infra.jobs.attempt import Attempt, Interrupted
from infra.jobs.definitions import Behaviour, Registry, Resources
from infra.section import Section
from service.work import building, lanes, syncing

if TYPE_CHECKING:
    from retrieval.builds import Evaluate, Verdict
    from retrieval.collections import Collection
    from retrieval.recipe import Recipe
    from service.wiring import Components

REINDEX = "reindex"


class Candidate(Section):
    """A recipe that may do better; what is absent is as the settings say."""

    embedder: str | None = None
    embedder_options: dict[str, Any] = Field(default_factory=dict)
    chunk_tokens: int | None = Field(default=None, ge=16, le=8192)
    overlap_tokens: int | None = Field(default=None, ge=0)


@dataclass(frozen=True, slots=True)
class _Tried:
    """What became of a candidate."""

    build: int
    recipe: str
    """Its digest."""
    decision: str
    """`swapped` or `refused`."""
    verdict: Mapping[str, Any]


def define(registered: Registry, parts: Components) -> None:
    """Register the job of this file; a monitor's trigger or a schedule starts it."""
    lane = lanes.of_collection(parts, lanes.BUILDING)

    # Not over HTTP: the suite that it names says what is read.
    @registered.job(
        REINDEX,
        resources=Resources(cpu=1),
        retries=building.RETRIES,
        behaviour=Behaviour(steps=False, lane=lane),
    )
    def reindex(
        attempt: Attempt,
        *,
        collection: str,
        candidates: list[dict[str, Any]] | None = None,
        suite: str | None = None,
        evidence: str | None = None,
    ) -> dict[str, Any]:
        from service.work import collection_gates

        whole = parts.collections.get(collection)
        recipes = [_recipe(parts, each) for each in candidates or ()]
        judge = None
        if suite is not None:
            judge = collection_gates.opened(parts, suite, whole, candidates=len(recipes))
        if evidence is not None:
            parts.artifacts.find(evidence)
        cause = {"job": attempt.job_id, "evidence": evidence}
        synced = list(_synced(attempt, parts, whole, cause))
        if recipes:
            _retire_left(attempt, parts, whole)
        with _not_left(attempt, parts, whole):
            tried = list(_tried(attempt, parts, whole, recipes, judge=judge, cause=cause))
        return {
            "decision": tried[-1].decision if tried else "in_step",
            "synced": synced,
            "tried": [asdict(each) for each in tried],
            "live": parts.collections.get(whole.public_id).build_id,
        }


def _recipe(parts: Components, values: Any) -> Recipe:
    try:
        return parts.recipe(**Candidate.model_validate(values).model_dump())
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise InvalidRequest(f"candidates: {values!r}: {where}: {problem['msg']}") from None


def _synced(
    attempt: Attempt, parts: Components, whole: Collection, cause: Mapping[str, object]
) -> Iterator[dict[str, Any]]:
    """Bring the collection in step with every source that it has by name."""
    for definition in parts.sources.list():
        if definition.collection == whole.public_id:
            found = syncing.run(attempt, parts, syncing.by_name(parts, definition))
            told = {"source": definition.name, **found}
            parts.builds.note(whole, "synced", {**cause, **told})
            yield told


def _tried(
    attempt: Attempt,
    parts: Components,
    whole: Collection,
    recipes: Sequence[Recipe],
    *,
    judge: Evaluate | None,
    cause: Mapping[str, object],
) -> Iterator[_Tried]:
    """Build one candidate after the other, until one takes over; a refused one is removed."""
    known = _known(parts, whole, attempt.job_id)
    if any(each.decision == "swapped" for each in known.values()):
        yield from known.values()
        return
    for recipe in recipes:
        found = known.get(recipe.digest)
        if found is None:
            whole = parts.collections.get(whole.public_id)
            if whole.recipe == recipe:
                attempt.log(f"build {whole.build_id} has the recipe {recipe.digest} already")
                continue
            found = _try(attempt, parts, whole, recipe, judge=judge, cause=cause)
        yield found
        if found.decision == "swapped":
            return
        parts.builds.retire(whole, found.build)


def _try(
    attempt: Attempt,
    parts: Components,
    whole: Collection,
    recipe: Recipe,
    *,
    judge: Evaluate | None,
    cause: Mapping[str, object],
) -> _Tried:
    verdicts: list[Verdict] = []

    def evaluate(live: Collection, candidate: Collection) -> Verdict:
        found = parts.evaluate(live, candidate)
        if found.passed and judge is not None:
            attempt.progress(None, f"asking {live.name!r} the questions of its suite")
            found = judge(live, candidate)
        verdicts.append(found)
        return found

    begun = parts.builds.start(whole, recipe, cause=cause)
    if _unfinished(parts, whole).get(begun.id) != attempt.job_id:
        raise Conflict(
            f"Build {begun.id} of {whole.name!r} is under way for somebody else; swap it, or "
            "retire it first"
        )
    building.fill(attempt, parts, whole, begun)
    attempt.check()
    try:
        parts.builds.swap(whole, expect=whole.build_id, evaluate=evaluate, cause=cause)
    except Conflict:
        if not verdicts or verdicts[-1].passed:
            raise
        attempt.log(f"build {begun.id} stays out: {verdicts[-1].reason}", level="warning")
    (verdict,) = verdicts
    decision = "swapped" if verdict.passed else "refused"
    return _Tried(begun.id, recipe.digest, decision, building.described(verdict))


@contextmanager
def _not_left(attempt: Attempt, parts: Components, whole: Collection) -> Iterator[None]:
    """Remove the build that this job began where the job ends here: it would be in the way."""
    try:
        yield
    except building.RETRIES.permanent:
        _retire_own(attempt, parts, whole)
        raise
    except Interrupted as interrupted:
        if interrupted.reason == "cancelled":
            _retire_own(attempt, parts, whole)
        raise


def _retire_own(attempt: Attempt, parts: Components, whole: Collection) -> None:
    for build, job in _unfinished(parts, whole).items():
        if job == attempt.job_id:
            parts.builds.retire(whole, build)


def _retire_left(attempt: Attempt, parts: Components, whole: Collection) -> None:
    """Remove builds of re-indexing jobs that have ended and could not do it: killed, say."""
    unfinished = _unfinished(parts, whole)
    jobs = parts.jobs.find({job for job in unfinished.values() if job is not None})
    for build, job in unfinished.items():
        # One whose record is purged has ended, too.
        if job is not None and (job not in jobs or jobs[job].is_finished):
            attempt.log(f"build {build} was left by {job}, which has ended, and is removed")
            parts.builds.retire(whole, build)


def _unfinished(parts: Components, whole: Collection) -> dict[int, str | None]:
    """Return the builds that are under way, each with the re-indexing job that began it, if any."""
    history = parts.builds.history(whole)
    began = {each.build_id: each.detail.get("job") for each in history if each.kind == "started"}
    builds = parts.builds.list(whole)
    return {each.id: began.get(each.id) for each in builds if each.state == "building"}


def _known(parts: Components, whole: Collection, job: str) -> dict[str, _Tried]:
    """Return what earlier attempts of a job decided, by recipe."""
    found = {}
    for event in parts.builds.history(whole):
        if event.kind in {"swapped", "refused"} and event.detail.get("job") == job:
            digest = parts.builds.get(whole, event.build_id).recipe.digest
            verdict = {key: event.detail[key] for key in ("passed", "reason", "scores")}
            found[digest] = _Tried(event.build_id, digest, event.kind, verdict)
    return found

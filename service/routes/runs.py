"""Runs: list, read, compare, delete, and their metrics thinned to what a plot can show."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from infra.errors import NotFound
from infra.tracking.comparison import MAX_RUNS, compare
from infra.tracking.limits import MAX_KEY_CHARACTERS, MAX_NAME_CHARACTERS
from infra.tracking.points import downsample
from service.bodies import StrictRoute
from service.dependencies import Operator, Parts
from service.schemas.runs import (
    MAX_BUCKETS,
    MAX_METRICS,
    ComparisonOut,
    FullRun,
    MetricList,
    MetricOut,
    RunList,
    RunOut,
    State,
)
from service.schemas.shared import MAX_LIST, OPENAI_ERRORS, Deleted

router = APIRouter(
    prefix="/v1/runs",
    tags=["runs"],
    route_class=StrictRoute,
    responses=OPENAI_ERRORS,
    dependencies=[Operator],
)
RunId = Annotated[str, Query(max_length=64)]


@router.get("")
def list_runs(
    components: Parts,
    kind: Annotated[str | None, Query(max_length=64)] = None,
    state: State | None = None,
    name: Annotated[str | None, Query(max_length=MAX_NAME_CHARACTERS)] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIST)] = 20,
    after: RunId | None = None,
) -> RunList:
    """List runs, newest first; `after` is the id of the last one of the page before."""
    found = components.runs.list(kind=kind, state=state, name=name, limit=limit + 1, before=after)
    data = [RunOut.of(each) for each in found[:limit]]
    return RunList(
        data=data,
        first_id=data[0].id if data else None,
        last_id=data[-1].id if data else None,
        has_more=len(found) > limit,
    )


@router.get("/compare")
def compare_runs(
    components: Parts,
    id: Annotated[list[RunId], Query(min_length=2, max_length=MAX_RUNS)],
    only_differences: bool = False,
) -> ComparisonOut:
    """Put runs side by side: parameters, metrics, data, code, environment, packages."""
    return ComparisonOut.of(compare(components.runs, id), only_differences=only_differences)


@router.get("/{run_id}")
def get(run_id: str, components: Parts) -> FullRun:
    """Return a run, with how its metrics stand and what it used and made."""
    return FullRun.read(components.runs, components.runs.get(run_id))


@router.get("/{run_id}/metrics")
def metrics(
    run_id: str,
    components: Parts,
    name: Annotated[
        list[Annotated[str, Query(max_length=MAX_KEY_CHARACTERS)]],
        Query(min_length=1, max_length=MAX_METRICS),
    ],
    buckets: Annotated[int, Query(ge=1, le=MAX_BUCKETS)] = 500,
) -> MetricList:
    """Return metrics over time; a bucket keeps the lowest, the highest and the last of its points.

    Where there are no more points than buckets, every bucket is one point.
    """
    known = {series.name: series for series in components.runs.series(run_id)}
    data = []
    for each in dict.fromkeys(name):
        points = components.runs.points(run_id, each)
        if each not in known:  # it came between the two readings
            raise NotFound("metric", each, among=known)
        data.append(MetricOut.of(known[each], downsample(points, buckets)))
    return MetricList(data=data)


@router.delete("/{run_id}")
def delete(run_id: str, components: Parts) -> Deleted:
    """Remove a run with its metrics; artifacts, and copies in mirrors, stay."""
    components.runs.delete(run_id)
    return Deleted(id=run_id, object="run.deleted")

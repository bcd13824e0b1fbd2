"""For whoever runs this: health and metrics."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Header, Response
from pydantic import BaseModel, ConfigDict

from service.dependencies import Operator, Parts, Ready
from service.readiness import State
from service.schemas.shared import PROBLEMS

router = APIRouter(tags=["operations"], responses=PROBLEMS)


class Live(BaseModel):
    status: Literal["live"] = "live"


class PartStates(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    database: State
    views: State
    embedder: State
    budgets: State


class Readiness(BaseModel):
    status: Literal["ready", "not_ready"]
    parts: PartStates


@router.get("/health/live")
async def live() -> Live:
    """Tell that the process answers; asks nothing else."""
    return Live()


@router.get("/health/ready", responses={503: {"model": Readiness, "description": "Not ready yet"}})
def ready(readiness: Ready, response: Response) -> Readiness:
    """Tell whether questions can be taken; one that comes while the embedder loads waits for it."""
    parts = readiness.parts()
    if not parts.is_ready:
        response.status_code = 503
        response.headers["Retry-After"] = "1"
    return Readiness(
        status="ready" if parts.is_ready else "not_ready", parts=PartStates.model_validate(parts)
    )


TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


@router.get(
    "/metrics",
    dependencies=[Operator],
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
def metrics(components: Parts, accept: Annotated[str, Header()] = "") -> Response:
    """Return the process's metrics in Prometheus' text format, or as OpenMetrics if asked to."""
    is_open = "application/openmetrics-text" in accept
    return Response(
        components.metrics.render(has_exemplars=is_open),
        media_type=OPENMETRICS if is_open else TEXT,
    )

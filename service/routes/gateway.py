"""For whoever runs models behind this: the servers as they are, and the routes read anew."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from infra.errors import Conflict, InvalidConfiguration
from service.bodies import StrictRoute
from service.dependencies import Operator, Parts
from service.schemas.shared import OPENAI_ERRORS

router = APIRouter(
    prefix="/v1/gateway",
    tags=["gateway"],
    route_class=StrictRoute,
    responses=OPENAI_ERRORS,
    dependencies=[Operator],
)


class Reloaded(BaseModel):
    """Routes by what became of them."""

    model_config = ConfigDict(from_attributes=True)

    added: list[str]
    changed: list[str]
    removed: list[str]


class Replica(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    upstream: str
    replica: str
    running: int
    waiting: int
    breaker: Literal["closed", "half_open", "open"]
    is_up: bool
    failures: int


class Replicas(BaseModel):
    object: Literal["list"] = "list"
    data: list[Replica]


@router.post("/reload")
async def reload(components: Parts) -> Reloaded:
    """Read the settings anew; requests under way are not touched, wrong settings change nothing."""
    try:
        return Reloaded.model_validate(await components.routes.reload())
    except InvalidConfiguration as error:
        raise Conflict(f"The routes stay as they are: {error}") from error


@router.get("/replicas")
async def list_replicas(components: Parts) -> Replicas:
    """List the model servers with what runs and waits there, and their breakers."""
    found = components.routes.current.snapshot()
    return Replicas(data=[Replica.model_validate(item) for item in found])

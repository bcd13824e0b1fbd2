"""`GET /v1/comparisons/{name}`: how the challenger of a classical model stands."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from service.bodies import StrictRoute
from service.dependencies import Operator, Parts
from service.models import comparing
from service.schemas.comparisons import ComparisonOut
from service.schemas.shared import OPENAI_ERRORS

router = APIRouter(
    prefix="/v1/comparisons",
    tags=["models"],
    route_class=StrictRoute,
    responses=OPENAI_ERRORS,
    dependencies=[Operator],
)


@router.get("/{model_name}")
def comparison(
    model_name: Annotated[str, Path(max_length=128)], components: Parts
) -> ComparisonOut:
    """Compare a challenger with the version in use, by all that both predicted; nothing moves."""
    return ComparisonOut.of(comparing.compare(components, model_name))

"""Interactions: list, read and delete the record of questions and answers."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query

from infra.errors import InvalidRequest, NotFound
from monitoring.interactions import Query as Wanted
from service.dependencies import Asking, Parts
from service.schemas.interactions import DeletedInteractions, InteractionOut, InteractionPage
from service.schemas.shared import MAX_LIST, OPENAI_ERRORS
from service.schemas.times import Moment

router = APIRouter(prefix="/v1/interactions", tags=["interactions"], responses=OPENAI_ERRORS)


def _wanted(
    caller: Asking,
    since: Moment | None = None,
    until: Moment | None = None,
    kind: Literal["answer", "completion", "prediction"] | None = None,
    model: str | None = None,
    tag: str | None = None,
    outcome: Literal["answered", "abstained", "failed", "cancelled"] | None = None,
) -> Wanted:
    """A tenant sees its own, the operator everybody's."""
    for name, moment in (("since", since), ("until", until)):
        if moment is not None and moment.tzinfo is None:
            raise InvalidRequest(f"{name!r} has no time zone; add one, such as Z", parameter=name)
    return Wanted(since, until, kind, model, tag, caller.tenant, outcome)


Asked = Annotated[Wanted, Depends(_wanted)]


@router.get("")
def list_interactions(
    wanted: Asked,
    components: Parts,
    limit: Annotated[int, Query(ge=1, le=MAX_LIST)] = 20,
    after: str | None = None,
) -> InteractionPage:
    """List interactions, newest first."""
    found = components.interactions.find(wanted, limit=limit + 1, after=after)
    return InteractionPage(
        data=[InteractionOut.of(item) for item in found[:limit]], has_more=len(found) > limit
    )


@router.get("/{interaction_id}")
def get(interaction_id: str, caller: Asking, components: Parts) -> InteractionOut:
    """Return one interaction."""
    item = components.interactions.get(interaction_id)
    if caller.tenant is not None and item.tenant != caller.tenant:
        raise NotFound("interaction", interaction_id)
    return InteractionOut.of(item)


@router.delete("")
def delete(wanted: Asked, components: Parts) -> DeletedInteractions:
    """Delete the interactions that a list with the same query would show; all, without one."""
    return DeletedInteractions(deleted=components.interactions.delete(wanted))

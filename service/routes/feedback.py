"""Feedback: votes, corrections and labels on answers and predictions."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from infra.errors import NotFound
from monitoring.feedback import Statement
from service.dependencies import Asking, Parts
from service.schemas.feedback import FeedbackIn, FeedbackList, FeedbackOut
from service.schemas.shared import OPENAI_ERRORS

router = APIRouter(prefix="/v1/feedback", tags=["interactions"], responses=OPENAI_ERRORS)


@router.post("")
def give(body: FeedbackIn, caller: Asking, components: Parts) -> FeedbackOut:
    """Say something of an interaction; what is answered is stored. The same again changes nothing.

    Labels may come late, as long as the interaction is kept.
    """
    said = Statement(**body.model_dump(), key_id=caller.key_id, tenant=caller.tenant)
    kept = components.feedback.add(said)
    if kept.is_new:
        components.metrics.feedback.count(kept.kind, kept.value or "given")
    return FeedbackOut.of(kept)


@router.get("")
def list_feedback(
    interaction_id: Annotated[str, Query(max_length=64)], caller: Asking, components: Parts
) -> FeedbackList:
    """List what was said of an interaction, in order."""
    item = components.interactions.get(interaction_id)
    if caller.tenant is not None and item.tenant != caller.tenant:
        raise NotFound("interaction", interaction_id)
    said = components.feedback.of(interaction_id)
    return FeedbackList(data=[FeedbackOut.of(each) for each in said])

"""OpenAI's text completions: described here, answered by the door before they come here."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from infra.errors import NotFound
from service.bodies import StrictRoute
from service.schemas.answers import UsageOut
from service.schemas.shared import OPENAI_ERRORS

router = APIRouter(prefix="/v1", tags=["models"], route_class=StrictRoute, responses=OPENAI_ERRORS)


class CompletionBody(BaseModel):
    """Whatever else stands here is passed on to the model's server."""

    model_config = ConfigDict(extra="allow", strict=True)

    model: str = Field(min_length=1)
    prompt: str | list[Any]
    stream: bool | None = None
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)


class TextChoice(BaseModel):
    index: int
    text: str
    finish_reason: str | None


class TextCompletion(BaseModel):
    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChoice]
    usage: UsageOut


@router.post("/completions")
async def complete_text(body: CompletionBody) -> TextCompletion:
    """Continue a text with a model of the gateway."""
    # The door has answered for every name that could be a route's.
    raise NotFound("model", body.model)

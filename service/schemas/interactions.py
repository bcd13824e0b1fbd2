"""Interactions over HTTP: what was asked of what, by whom, and what became of it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel

from infra.contracts import Interaction, Verdict
from service.schemas.answers import UsageOut


class InteractionOut(BaseModel):
    object: Literal["interaction"] = "interaction"
    id: str
    kind: Literal["answer", "completion", "prediction"]
    at: datetime
    model: str
    outcome: Literal["answered", "abstained", "failed", "cancelled"]
    status: int
    request_id: str | None
    error: str | None
    tenant: str | None
    key_id: str | None
    collection: str | None
    upstream: str
    tag: str
    source: str
    served: str | None
    terms: Literal["pinned", "hurried"] | None
    draw: float | None
    prompt_version: str | None
    usage: UsageOut
    cached_tokens: int
    cost: float
    first_byte_seconds: float | None
    seconds: float
    support: float | None
    groundedness: float | None
    verdict: Verdict | None
    review: Literal["unsupported", "sampled"] | None
    documents: list[str]
    content: dict[str, Any] | None

    @classmethod
    def of(cls, item: Interaction) -> InteractionOut:
        values = {
            name: getattr(item, name)
            for name in cls.model_fields
            if name not in {"object", "usage", "cost", "documents", "content"}
        }
        return cls(
            **values,
            usage=UsageOut.model_validate(item.usage),
            cost=item.cost_nano / 1e9,
            documents=list(item.documents),
            content=None if item.content is None else dict(item.content),
        )


class InteractionPage(BaseModel):
    object: Literal["list"] = "list"
    data: list[InteractionOut]
    has_more: bool


class DeletedInteractions(BaseModel):
    deleted: int

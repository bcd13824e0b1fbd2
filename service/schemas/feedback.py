"""Feedback over HTTP: what is said of an interaction."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from monitoring.feedback import MOST_CHARACTERS, Feedback


class FeedbackIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    interaction_id: str = Field(min_length=1, max_length=128)
    """The answer's id, or the `x-request-id` of the request."""
    kind: Literal["thumbs", "correction", "label"]
    value: str = Field(default="", max_length=255)
    text: str | None = Field(default=None, max_length=MOST_CHARACTERS)


class FeedbackOut(BaseModel):
    object: Literal["feedback"] = "feedback"
    id: str
    interaction_id: str
    at: datetime
    kind: Literal["thumbs", "correction", "label"]
    value: str
    text: str | None

    @classmethod
    def of(cls, item: Feedback) -> FeedbackOut:
        names = ("id", "interaction_id", "at", "kind", "value", "text")
        return cls(**{name: getattr(item, name) for name in names})


class FeedbackList(BaseModel):
    object: Literal["list"] = "list"
    data: list[FeedbackOut]

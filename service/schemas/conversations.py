"""OpenAI's conversations: what may be said, and how it is shown."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from service.conversations import Conversation, Item, Said
from service.schemas.shared import Input, StoreMetadata, unix

MAX_ITEMS = 20
"""Added at once; OpenAI's limit."""


class Part(Input):
    type: Literal["input_text", "output_text", "text"]
    text: str
    annotations: list[Any] = []
    logprobs: list[Any] = []


class Message(Input):
    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[Part], Field(min_length=1, max_length=100)]
    id: str | None = Field(None, description="Ignored: ids are given here.")
    status: str | None = None

    def as_said(self) -> Said:
        text = self.content if isinstance(self.content, str) else None
        if text is None:
            text = "\n".join(part.text for part in self.content if isinstance(part, Part))
        return Said.of(self.role, text)


Messages = Annotated[list[Message], Field(max_length=MAX_ITEMS)]


class CreateConversation(Input):
    items: Messages | None = None
    metadata: StoreMetadata | None = None


class UpdateConversation(Input):
    metadata: StoreMetadata


class CreateItems(Input):
    items: Annotated[list[Message], Field(min_length=1, max_length=MAX_ITEMS)]


class ConversationOut(BaseModel):
    id: str
    object: Literal["conversation"] = "conversation"
    created_at: int
    metadata: dict[str, str]

    @classmethod
    def of(cls, found: Conversation) -> ConversationOut:
        return cls(id=found.id, created_at=unix(found.created_at), metadata=dict(found.attributes))


class ItemOut(BaseModel):
    id: str
    type: Literal["message"] = "message"
    status: Literal["completed"] = "completed"
    role: str
    content: list[dict[str, Any]]

    @classmethod
    def of(cls, item: Item) -> ItemOut:
        return cls(id=item.id, role=item.role, content=[dict(part) for part in item.content])


class ItemList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ItemOut]
    first_id: str | None
    last_id: str | None
    has_more: bool

    @classmethod
    def of(cls, items: list[Item], *, has_more: bool) -> ItemList:
        return cls(
            data=[ItemOut.of(item) for item in items],
            first_id=items[0].id if items else None,
            last_id=items[-1].id if items else None,
            has_more=has_more,
        )

"""OpenAI's conversations: made, read, changed and removed, with what was said in them."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query

from service.bodies import StrictRoute
from service.dependencies import Asking, Parts
from service.schemas.conversations import (
    ConversationOut,
    CreateConversation,
    CreateItems,
    ItemList,
    ItemOut,
    UpdateConversation,
)
from service.schemas.shared import MAX_LIST, OPENAI_ERRORS, Deleted

router = APIRouter(
    prefix="/v1/conversations",
    tags=["conversations"],
    route_class=StrictRoute,
    responses=OPENAI_ERRORS,
)
Id = Annotated[str, Path(max_length=64)]


@router.post("")
def create(body: CreateConversation, caller: Asking, components: Parts) -> ConversationOut:
    """Make a conversation, with its first messages if any are given."""
    caller.require("ask")
    made = components.conversations.create(
        caller,
        attributes=body.metadata or {},
        items=[message.as_said() for message in body.items or ()],
    )
    return ConversationOut.of(made)


@router.get("/{conversation_id}")
def get(conversation_id: Id, caller: Asking, components: Parts) -> ConversationOut:
    """Return a conversation."""
    caller.require("ask")
    return ConversationOut.of(components.conversations.get(caller, conversation_id))


@router.post("/{conversation_id}")
def update(
    conversation_id: Id, body: UpdateConversation, caller: Asking, components: Parts
) -> ConversationOut:
    """Replace the metadata of a conversation."""
    caller.require("ask")
    changed = components.conversations.update(caller, conversation_id, attributes=body.metadata)
    return ConversationOut.of(changed)


@router.delete("/{conversation_id}")
def delete(conversation_id: Id, caller: Asking, components: Parts) -> Deleted:
    """Remove a conversation with all that was said in it."""
    caller.require("ask")
    components.conversations.delete(caller, conversation_id)
    return Deleted(id=conversation_id, object="conversation.deleted")


@router.post("/{conversation_id}/items")
def create_items(
    conversation_id: Id,
    body: CreateItems,
    caller: Asking,
    components: Parts,
    include: Annotated[list[str] | None, Query(max_length=20)] = None,
) -> ItemList:
    """Add messages; the oldest give way where there are more than are kept."""
    del include
    caller.require("ask")
    items = components.conversations.append(
        caller, conversation_id, [message.as_said() for message in body.items]
    )
    return ItemList.of(items, has_more=False)


@router.get("/{conversation_id}/items")
def list_items(
    conversation_id: Id,
    caller: Asking,
    components: Parts,
    limit: Annotated[int, Query(ge=1, le=MAX_LIST)] = 20,
    after: Annotated[str | None, Query(max_length=64)] = None,
    order: Literal["asc", "desc"] = "desc",
    include: Annotated[list[str] | None, Query(max_length=20)] = None,
) -> ItemList:
    """List the messages of a conversation."""
    del include
    caller.require("ask")
    page = components.conversations.items(
        caller, conversation_id, limit=limit, after=after, descending=order == "desc"
    )
    return ItemList.of(list(page.items), has_more=page.has_more)


@router.get("/{conversation_id}/items/{item_id}")
def get_item(
    conversation_id: Id,
    item_id: Id,
    caller: Asking,
    components: Parts,
    include: Annotated[list[str] | None, Query(max_length=20)] = None,
) -> ItemOut:
    """Return one message."""
    del include
    caller.require("ask")
    return ItemOut.of(components.conversations.item(caller, conversation_id, item_id))


@router.delete("/{conversation_id}/items/{item_id}")
def delete_item(
    conversation_id: Id, item_id: Id, caller: Asking, components: Parts
) -> ConversationOut:
    """Remove one message; returns the conversation that it was in."""
    caller.require("ask")
    found = components.conversations.delete_item(caller, conversation_id, item_id)
    return ConversationOut.of(found)

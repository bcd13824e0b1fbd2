"""Conversations that responses belong to: what was said before, and what each adds."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from service.callers import Caller
from service.conversations import Conversations, Said
from service.keeping import told_anyway
from service.limits import in_thread
from service.responses.assembly import Event
from service.responses.store import Stored
from service.responses.turns import output_messages
from service.responses.writing import Draft
from service.schemas.responses import MessageItem, ResponsesBody


def said_before(conversations: Conversations, caller: Caller, id: str) -> Stored:
    """Return the latest messages of a conversation, as those of an earlier response.

    Raises:
        NotFound: there is none, or it is another tenant's.
    """
    said = conversations.history(caller, id)
    messages = [{"role": turn.role, "content": turn.content} for turn in said.turns]
    return Stored({}, (), messages, said.documents)


def said_now(body: ResponsesBody, draft: Draft, mask: Callable[[str], str]) -> list[Said]:
    """Return what a finished response adds: what was asked, and what it answers."""
    asked = [item for item in body.items if isinstance(item, MessageItem)]
    said = [Said.of(item.role, mask(item.text), documents=()) for item in asked]
    for message in output_messages(draft.response["output"]):
        text = mask(str(message.get("content") or ""))
        said.append(Said.of("assistant", text, documents=draft.documents))
    return said


async def continued(
    events: AsyncGenerator[Event, None], add: Callable[[], object]
) -> AsyncGenerator[Event, None]:
    """Add to the conversation before the last event is told: the next question may come at once."""
    async with aclosing(events):
        async for event in events:
            if event["type"] in {"response.completed", "response.incomplete"}:
                with told_anyway("a response is not in its conversation"):
                    await in_thread(add)
            yield event

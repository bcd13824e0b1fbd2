"""OpenAI's Responses: create, read, delete, and list what was asked."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request, Response

from infra.errors import InvalidRequest, NotFound, TooLarge
from infra.expectations.recognizers import mask
from retrieval.search import SearchRequest
from service.billing import count_repeated
from service.bodies import StrictRoute
from service.callers import Caller
from service.dependencies import Asked, Asking, Parts
from service.gateway.opening import IDEMPOTENCY_HEADER, Origin
from service.gateway.replies import GatewayReply, whole
from service.keeping import told_anyway
from service.limits import in_thread
from service.questions import Question
from service.responses.assembly import Event
from service.responses.conversing import continued, said_before, said_now
from service.responses.repeating import Repeating
from service.responses.store import Stored
from service.responses.turns import as_question, output_messages
from service.responses.writing import (
    Complete,
    Draft,
    begin,
    write_from_documents,
    write_with_model,
)
from service.routes.answers import STREAM
from service.schemas.chat import MODEL_PREFIX
from service.schemas.responses import ItemList, ResponseOut, ResponsesBody
from service.schemas.shared import MAX_LIST, OPENAI_ERRORS, Deleted, parse_filter
from service.streaming import EventStream, begun, frame
from service.wiring import Components

router = APIRouter(
    prefix="/v1/responses", tags=["responses"], route_class=StrictRoute, responses=OPENAI_ERRORS
)


@router.post("", response_model=ResponseOut, responses=STREAM)
async def create(
    body: ResponsesBody, request: Request, asked: Asked, caller: Asking, components: Parts
) -> Any:
    """Answer with a model, or from documents: `rag/<collection>`, or the tool `file_search`.

    As server-sent events, each with its number; the last carries the whole response.
    """
    body.refuse_unsupported()
    earlier = await in_thread(lambda: _earlier(components, body, caller))
    draft = begin(body, earlier)
    limits: dict[str, str] = {}
    question = _question(draft, body) if body.asks_documents else None
    if question is None:
        complete = _complete(components, request, caller, draft, limits)
        events = write_with_model(draft, body, complete)
    else:
        found = asked.stream(question)
        events = write_from_documents(draft, question.text, found, shows_results=body.shows_results)
    if body.store is not False:
        events = _kept(events, lambda: _store(components, draft, body, caller))
    if body.conversation_id is not None:
        events = continued(events, lambda: _continue(components, draft, body, caller))

    async def write() -> GatewayReply:
        reply = await _written(draft, events, is_stream=bool(body.stream))
        return replace(reply, headers={**reply.headers, **asked.headers, **limits})

    key = request.headers.get(IDEMPOTENCY_HEADER)
    if key is None:
        return await _as_response(await write())

    async def check(documents: Collection[str]) -> None:
        if question is None:
            caller.require("models")
            caller.require_model(body.model)
        else:
            await asked.check(question)
        await in_thread(lambda: components.responses.check(draft.response["id"], documents, caller))

    async def admit() -> Mapping[str, str]:
        if question is not None:
            return await asked.count_again(question)
        return await count_repeated(components.meter, caller=caller, model=body.model)

    reply = await components.repeated_responses.run(
        key,
        body.model_dump(mode="json"),
        draft,
        Repeating(write, admit, check),
        caller=caller,
        may_quote=question is not None or bool(draft.documents),
    )
    return await _as_response(reply)


@router.get("/{response_id}")
def get(response_id: str, caller: Asking, components: Parts) -> ResponseOut:
    """Return a stored response."""
    return ResponseOut.model_validate(components.responses.get(response_id, caller).body)


@router.delete("/{response_id}")
async def delete(response_id: str, caller: Asking, components: Parts) -> Deleted:
    """Delete a stored response, with what it quotes."""
    await in_thread(lambda: components.responses.delete(response_id, caller))
    components.repeated_responses.drop(response_id)
    return Deleted(id=response_id, object="response.deleted")


@router.get("/{response_id}/input_items")
def list_input_items(
    response_id: str,
    caller: Asking,
    components: Parts,
    limit: Annotated[int, Query(ge=1, le=MAX_LIST)] = 20,
    after: str | None = None,
) -> ItemList:
    """List what was asked, the newest first."""
    items = [dict(item) for item in components.responses.get(response_id, caller).items]
    items.reverse()
    if after is not None:
        at = next((at for at, item in enumerate(items) if item["id"] == after), None)
        if at is None:
            raise NotFound("item", after)
        items = items[at + 1 :]
    page = items[:limit]
    return ItemList(
        data=page,
        first_id=page[0]["id"] if page else None,
        last_id=page[-1]["id"] if page else None,
        has_more=len(items) > limit,
    )


def _question(draft: Draft, body: ResponsesBody) -> Question:
    search = body.file_search
    text, history = as_question(draft.messages, instructions=body.instructions)
    question = Question(
        text=text,
        collection=body.model.removeprefix(MODEL_PREFIX),
        history=history,
        quoted=draft.documents,
        max_tokens=body.max_output_tokens,
        parameter="input",
    )
    if search is None:
        return question
    options = search.ranking_options
    return replace(
        question,
        collection=search.vector_store_ids[0],
        generator=None if body.model.startswith(MODEL_PREFIX) else body.model,
        filter=parse_filter(search.filters),
        limit=search.max_num_results,
        template=SearchRequest("", min_score=options.score_threshold if options else None),
    )


def _complete(
    components: Components, request: Request, caller: Caller, draft: Draft, limits: dict[str, str]
) -> Complete:
    """Return what asks a model; `limits` are filled with what its answer says of them."""

    async def complete(body: dict[str, Any]) -> GatewayReply:
        state = request.scope["state"]
        headers = dict(request.headers)
        headers.pop(IDEMPOTENCY_HEADER, None)  # the response is repeated, not its completion
        origin = Origin(
            state["request_id"],
            headers,
            parent=state.get("traceparent"),
            documents=tuple(draft.documents),
        )
        try:
            reply = await components.within.chat(body, caller=caller, origin=origin)
        except InvalidRequest as error:
            error.parameter = "input" if error.parameter == "messages" else error.parameter
            raise
        named = reply.headers.items()
        limits.update({name: each for name, each in named if name.startswith("x-ratelimit-")})
        return reply

    return complete


async def _kept(
    events: AsyncGenerator[Event, None], store: Callable[[], bool]
) -> AsyncGenerator[Event, None]:
    """Store the response before its last event is told: who has seen the end can go on from it.

    One that cannot be stored was paid for all the same: it is told, and says that it is not stored.
    """
    async with aclosing(events):
        async for event in events:
            if event["type"] in {"response.completed", "response.incomplete"}:
                event["response"]["store"] = await in_thread(store)
            yield event


def _store(components: Components, draft: Draft, body: ResponsesBody, caller: Caller) -> bool:
    items = [
        {"id": f"item_{at}", **item.model_dump(mode="json", exclude_none=True)}
        for at, item in enumerate(body.items)
    ]
    messages = [*draft.messages, *output_messages(draft.response["output"])]
    stored = Stored(draft.response, items, messages, draft.documents)
    is_stored = False
    with told_anyway(f"response {draft.response['id']} is not stored"):
        components.responses.put(stored, caller)
        is_stored = True
    draft.response["store"] = is_stored
    return is_stored


def _continue(components: Components, draft: Draft, body: ResponsesBody, caller: Caller) -> None:
    is_masked = components.settings.guards.personal_data != "off"
    said = said_now(body, draft, mask if is_masked else str)
    components.conversations.append(caller, str(body.conversation_id), said)


def _earlier(components: Components, body: ResponsesBody, caller: Caller) -> Stored | None:
    if body.conversation_id is not None:
        return said_before(components.conversations, caller, body.conversation_id)
    if body.previous_response_id is None:
        return None
    earlier = components.responses.get(body.previous_response_id, caller)
    limit = components.settings.server.max_body_bytes
    size = sum(len(str(message.get("content"))) for message in earlier.messages)
    if size > limit:
        raise TooLarge(f"The conversation has {size:,} characters; begin a new one")
    return earlier


async def _written(
    draft: Draft, events: AsyncGenerator[Event, None], *, is_stream: bool
) -> GatewayReply:
    """Begin the response, or write it whole."""
    if is_stream:
        frames = _frames(await begun(events))
        return GatewayReply(200, {"content-type": "text/event-stream; charset=utf-8"}, frames)
    async with aclosing(events):
        async for _ in events:
            pass
    body = orjson.dumps(draft.response)
    headers = {"content-type": "application/json", "content-length": str(len(body))}
    return GatewayReply(200, headers, whole(body))


async def _as_response(reply: GatewayReply) -> Response:
    own = {name: value for name, value in reply.headers.items() if not name.startswith("content-")}
    if reply.is_whole:
        body = b"".join([piece async for piece in _pieces(reply)])
        return Response(body, headers=own, media_type="application/json")
    return EventStream(_pieces(reply), headers=own)


async def _pieces(reply: GatewayReply) -> AsyncGenerator[bytes, None]:
    async with aclosing(reply.pieces):
        async for piece in reply.pieces:
            yield piece


async def _frames(events: AsyncGenerator[Event, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(events):
        async for event in events:
            yield frame(event, event=event["type"])

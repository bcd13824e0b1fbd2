"""OpenAI's chat completions and models: every collection is the model `rag/<collection>`."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel

from infra.contracts import Answer
from infra.errors import NotFound, RagstoneError
from infra.security import new_id
from retrieval.collections import Collection
from service.answering import AnswerEvent, Finished, Text
from service.bodies import StrictRoute
from service.dependencies import Asked, Own, Parts
from service.errors import as_object, describe
from service.routes.answers import STREAM
from service.schemas.answers import UsageOut
from service.schemas.chat import MODEL_PREFIX, ChatBody, Completion
from service.schemas.shared import OPENAI_ERRORS, unix
from service.streaming import EventStream, begun, frame

router = APIRouter(prefix="/v1", tags=["chat"], route_class=StrictRoute, responses=OPENAI_ERRORS)
PAGE = 1000


class Model(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["ragstone"] = "ragstone"

    @classmethod
    def of(cls, collection: Collection) -> Model:
        return cls(id=f"{MODEL_PREFIX}{collection.name}", created=unix(collection.created_at))


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[Model]


@router.get("/models")
def list_models(components: Parts, seen: Own) -> ModelList:
    """List the models of the gateway that the caller may use, and the collections as models."""
    table = components.routes.current
    models = [Model(id=name, created=table.made_at) for name in table.names(seen.caller)]
    after = None
    while True:
        page = seen.collections.list(limit=PAGE, after=after, descending=False)
        models += [Model.of(collection) for collection in page.items]
        if not page.has_more:
            return ModelList(data=models)
        after = page.items[-1].public_id


@router.get("/models/{model:path}")
def get_model(model: str, components: Parts, seen: Own) -> Model:
    """Return one model; a collection's id holds a slash."""
    table = components.routes.current
    if table.is_open(model, seen.caller):
        return Model(id=model, created=table.made_at)
    if not model.startswith(MODEL_PREFIX):
        raise NotFound("model", model)
    return Model.of(_collection(seen.collections.get, model))


@router.post("/chat/completions", response_model=Completion, responses=STREAM)
async def complete(body: ChatBody, asked: Asked, response: Response) -> Completion | Response:
    """Answer the last user message; annotations and citations stand on the message.

    A request for a model of the gateway is passed on to its server, with whatever that takes.
    """
    question = body.as_question()
    reply = _Reply(body.model, new_id("chatcmpl-"), int(time.time()))
    try:
        if body.stream:
            events = await begun(asked.stream(question))
            frames = _frames(reply, events, with_usage=body.wants_usage)
            return EventStream(frames, headers=asked.headers)
        answer = await asked.answer(question)
    except NotFound as error:
        raise _as_model(error, body.model) from error
    response.headers.update(asked.headers)
    return Completion.of(answer, model=reply.model, number=reply.id, created=reply.created)


class _Reply:
    """What every chunk of one completion says."""

    def __init__(self, model: str, number: str, created: int) -> None:
        self.model = model
        self.id = number
        self.created = created

    def chunk(
        self, delta: dict[str, Any], *, finish_reason: str | None = None, **more: Any
    ) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return self._frame([choice], **more)

    def usage(self, answer: Answer) -> bytes:
        return self._frame([], usage=UsageOut.model_validate(answer.usage).model_dump())

    def _frame(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        return frame(
            {
                "id": self.id,
                "object": "chat.completion.chunk",
                "created": self.created,
                "model": self.model,
                "system_fingerprint": None,
                "choices": choices,
                **more,
            }
        )


async def _frames(
    reply: _Reply, events: AsyncGenerator[AnswerEvent, None], *, with_usage: bool
) -> AsyncGenerator[bytes, None]:
    # OpenAI sends an empty usage with every chunk of a stream that will end with one.
    more: dict[str, Any] = {"usage": None} if with_usage else {}
    async with aclosing(events):
        try:
            yield reply.chunk({"role": "assistant", "content": "", "refusal": None}, **more)
            async for event in events:
                if isinstance(event, Text):
                    yield reply.chunk({"content": event.text}, **more)
                elif isinstance(event, Finished):
                    yield reply.chunk(
                        _last_delta(event.answer), finish_reason=event.answer.finish_reason, **more
                    )
                    if with_usage:
                        yield reply.usage(event.answer)
            yield b"data: [DONE]\n\n"
        except RagstoneError as error:
            yield frame(as_object(describe(error)))


def _last_delta(answer: Answer) -> dict[str, Any]:
    whole = Completion.of(answer, model="", number="", created=0).choices[0].message.model_dump()
    return {name: whole[name] for name in ("annotations", "citations", "answerable", "reason")}


def _collection(get: Any, model: str) -> Collection:
    try:
        found: Collection = get(model.removeprefix(MODEL_PREFIX))
    except NotFound as error:
        raise _as_model(error, model) from error
    return found


def _as_model(error: NotFound, model: str) -> NotFound:
    """Whoever asked for a model is told of a model."""
    if error.kind != "collection":
        return error
    return NotFound("model", model)

"""Native questions: `POST /v1/answers` and `POST /v1/search`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Header, Response

from infra.errors import RagstoneError
from service.answering import AnswerEvent, Cited, Finished, Retrieved, Text
from service.bodies import StrictRoute
from service.dependencies import Asked
from service.errors import as_object, describe
from service.schemas.answers import (
    AnswerBody,
    AnswerOut,
    CitationOut,
    PassageOut,
    SearchBody,
    SearchOut,
)
from service.schemas.shared import OPENAI_ERRORS
from service.streaming import EventStream, begun, frame

router = APIRouter(
    prefix="/v1", tags=["questions"], route_class=StrictRoute, responses=OPENAI_ERRORS
)
_FIELDS = {name: {"type": "string"} for name in ("event", "data", "id")}
_EVENT = {"type": "object", "properties": _FIELDS}
STREAM: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": _EVENT}}}
}
"""Each event of a stream: its name, and JSON as its data."""


@router.post("/answers", response_model=AnswerOut, responses=STREAM)
async def answer(
    body: AnswerBody,
    asked: Asked,
    response: Response,
    accept: Annotated[str, Header(include_in_schema=False)] = "",
) -> AnswerOut | Response:
    """Answer a question from a collection's documents, with citations checked to the character.

    As server-sent events: `retrieved`, then `text` and `citation` as they come, then `done` with
    the whole answer; or `error`.
    """
    question = body.as_question()
    if body.stream or "text/event-stream" in accept:
        events = await begun(asked.stream(question))
        return EventStream(_frames(events), headers=asked.headers)
    answered = AnswerOut.of(await asked.answer(question))
    response.headers.update(asked.headers)
    return answered


@router.post("/search")
async def search(body: SearchBody, asked: Asked, response: Response) -> SearchOut:
    """Return the passages that match best, with scores between 0 and 1."""
    result = await asked.search(body.collection, body.as_request())
    response.headers.update(asked.headers)
    return SearchOut.of(body.collection, result)


async def _frames(events: AsyncGenerator[AnswerEvent, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(events):
        try:
            async for event in events:
                yield _frame(event)
        except RagstoneError as error:
            yield frame(as_object(describe(error)), event="error")


def _frame(event: AnswerEvent) -> bytes:
    match event:
        case Retrieved():
            passages = [PassageOut.of(passage).model_dump() for passage in event.passages]
            return frame({"passages": passages}, event="retrieved")
        case Text():
            return frame({"text": event.text}, event="text")
        case Cited():
            return frame(CitationOut.of(event.citation), event="citation")
        case Finished():
            return frame(AnswerOut.of(event.answer), event="done")

"""Writes one response: over a collection with citations, or by a chat model with its tools."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeAlias

from starlette.exceptions import HTTPException

from infra.contracts import Answer, Citation, Passage, Usage
from infra.errors import EngineFailed, RagstoneError
from infra.security import new_id
from service.answering import AnswerEvent, Cited, Finished, Retrieved, Text
from service.chat_stream import CallPiece, End, TextPiece, Used, read_chat
from service.errors import describe
from service.gateway.answers import reason_of
from service.gateway.replies import GatewayReply
from service.responses.assembly import Assembly, Event
from service.responses.store import Stored
from service.responses.turns import Message, as_chat_body, as_messages
from service.schemas.chat import Annotation
from service.schemas.responses import ResponsesBody
from service.streaming import begun

Complete: TypeAlias = Callable[[dict[str, Any]], Awaitable[GatewayReply]]
"""Sends the body of a chat completion to its model."""


@dataclass(slots=True)
class Draft:
    """A response while it is written, and what is known once it is."""

    assembly: Assembly
    messages: Sequence[Message]
    """Of all turns so far, the request's included."""
    documents: tuple[str, ...] = ()
    """Public ids of the documents that it may quote, in this turn or an earlier one."""

    @property
    def response(self) -> dict[str, Any]:
        return self.assembly.response


def begin(body: ResponsesBody, earlier: Stored | None = None) -> Draft:
    """Return the response to a request before anything of it is written.

    It copies what was said in an `earlier` one, and so quotes what that one quotes.
    """
    messages = [*(earlier.messages if earlier else ()), *as_messages(body.items)]
    response: dict[str, Any] = {
        "id": new_id("resp_"),
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "background": False,
        "completed_at": None,
        "conversation": {"id": body.conversation_id} if body.conversation_id else None,
        "error": None,
        "incomplete_details": None,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "max_tool_calls": body.max_tool_calls,
        "model": body.model,
        "output": [],
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "previous_response_id": body.previous_response_id,
        "reasoning": {"effort": None, "summary": None},
        "service_tier": "default",
        "store": body.store is not False,
        "temperature": 1.0 if body.temperature is None else body.temperature,
        "text": _dumped(body.text) if body.text else {"format": {"type": "text"}},
        "tool_choice": _dumped(body.tool_choice) if body.tool_choice else "auto",
        "tools": [_dumped(tool) for tool in body.tools or ()],
        "top_p": 1.0 if body.top_p is None else body.top_p,
        "truncation": "disabled",
        "usage": None,
        "user": body.user,
        "metadata": body.metadata or {},
    }
    return Draft(Assembly(response), messages, earlier.documents if earlier else ())


async def write_with_model(
    draft: Draft, body: ResponsesBody, complete: Complete
) -> AsyncGenerator[Event, None]:
    """Yield the events of a response that a chat model writes.

    Raises:
        RagstoneError, HTTPException: before the first event; later failures are events.
    """
    reply = await complete(as_chat_body(body, draft.messages))
    async with aclosing(reply.pieces) as pieces:
        if reply.status >= 400:
            raise await _refused(reply.status, pieces)
        for event in draft.assembly.begin():
            yield event
        async for event in _guarded(draft, _from_chat(draft.assembly, pieces)):
            yield event


async def write_from_documents(
    draft: Draft, query: str, events: AsyncGenerator[AnswerEvent, None], *, shows_results: bool
) -> AsyncGenerator[Event, None]:
    """Yield the events of a response that answers from documents, with citations.

    Raises:
        RagstoneError: nothing could be found; later failures are events.
    """
    events = await begun(events)
    async with aclosing(events):
        for event in (*draft.assembly.begin(), *draft.assembly.search(query)):
            yield event
        async for event in _guarded(draft, _from_answer(draft, events, shows_results)):
            yield event


async def _guarded(
    draft: Draft, events: AsyncGenerator[Event, None]
) -> AsyncGenerator[Event, None]:
    async with aclosing(events):
        try:
            async for event in events:
                yield event
        except RagstoneError as error:
            failure = describe(error)
            code = "rate_limit_exceeded" if failure.status == 429 else "server_error"
            for event in draft.assembly.fail(code, failure.message):
                yield event


async def _from_chat(
    assembly: Assembly, pieces: AsyncIterator[bytes]
) -> AsyncGenerator[Event, None]:
    finish_reason, usage, cached = None, Usage(), 0
    async for piece in read_chat(pieces):
        events: list[Event] = []
        match piece:
            case TextPiece():
                events = assembly.text(piece.text)
            case CallPiece():
                events = assembly.call(
                    piece.index,
                    call_id=piece.call_id,
                    name=piece.name,
                    arguments=piece.arguments,
                )
            case End():
                finish_reason = piece.finish_reason
            case Used():
                usage, cached = piece.usage, piece.cached_tokens
        for event in events:
            yield event
    if finish_reason is None:
        raise EngineFailed("The model stopped before the answer's end")
    for event in assembly.finish(finish_reason, usage, cached_tokens=cached):
        yield event


async def _from_answer(
    draft: Draft, events: AsyncGenerator[AnswerEvent, None], shows_results: bool
) -> AsyncGenerator[Event, None]:
    assembly = draft.assembly
    async for event in events:
        told: list[Event] = []
        match event:
            case Retrieved():
                results = [_result(passage) for passage in event.passages]
                told = assembly.found(results if shows_results else None)
                found = (passage.document_id for passage in event.passages)
                draft.documents = tuple(dict.fromkeys((*draft.documents, *found)))
            case Text():
                told = assembly.text(event.text)
            case Cited():
                told = assembly.annotate(_annotation(event.citation))
            case Finished():
                told = _finish(assembly, event.answer)
        for each in told:
            yield each


def _finish(assembly: Assembly, answer: Answer) -> list[Event]:
    assembly.response["answerable"] = answer.answerable
    return assembly.finish(answer.finish_reason, answer.usage)


def _annotation(citation: Citation) -> dict[str, Any]:
    """OpenAI's file citation, and where in the document its text stands."""
    return {
        **Annotation.of(citation).model_dump(),
        "start_char": citation.start_char,
        "end_char": citation.end_char,
        "quote": citation.text,
        "document_version": citation.document_version,
        "support": citation.support,
    }


def _result(passage: Passage) -> dict[str, Any]:
    return {
        "file_id": passage.document_id,
        "filename": passage.title or passage.source,
        "score": passage.score,
        "text": passage.text,
        "attributes": dict(passage.metadata),
    }


async def _refused(status: int, pieces: AsyncIterator[bytes]) -> Exception:
    """What the model server says of a request that is wrong is the caller's to know."""
    reason = await reason_of(pieces)
    return HTTPException(status, reason) if status < 500 else EngineFailed(reason)


def _dumped(value: Any) -> Any:
    if isinstance(value, str):
        return value
    return value.model_dump(mode="json", exclude_none=True, by_alias=True)

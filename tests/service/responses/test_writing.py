"""A response's events tell the same as the response at their end, in OpenAI's order and types."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import orjson
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter
from starlette.exceptions import HTTPException

from infra.errors import EngineFailed
from service.gateway.replies import GatewayReply
from service.responses.turns import as_chat_body, as_messages, output_messages
from service.responses.writing import begin, write_with_model
from service.schemas.responses import ResponsesBody

EVENTS: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
FUNCTION = {"type": "function", "name": "weather", "parameters": {"type": "object"}}


def chunk(finish_reason: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]}


def called(index: int, call_id: str | None, name: str | None, arguments: str) -> dict[str, Any]:
    call = {"index": index, "id": call_id, "function": {"name": name, "arguments": arguments}}
    return chunk(tool_calls=[call])


USAGE = {
    "choices": [],
    "usage": {
        "prompt_tokens": 9,
        "completion_tokens": 4,
        "prompt_tokens_details": {"cached_tokens": 3},
    },
}


class Model:
    """Answers every chat completion with the same chunks."""

    def __init__(self, *chunks: Any, status: int = 200) -> None:
        self.chunks = chunks
        self.status = status
        self.bodies: list[dict[str, Any]] = []

    async def complete(self, body: dict[str, Any]) -> GatewayReply:
        self.bodies.append(body)
        return GatewayReply(self.status, {}, pieces=self._pieces())

    async def _pieces(self) -> AsyncGenerator[bytes, None]:
        for each in self.chunks:
            if self.status >= 400:
                yield orjson.dumps(each)
            else:
                yield b"data: " + orjson.dumps(each) + b"\n\n"


def write(model: Model, **body: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    asked = ResponsesBody.model_validate({"model": "small", "input": "Hello", **body})
    draft = begin(asked)

    async def collect() -> list[dict[str, Any]]:
        return [event async for event in write_with_model(draft, asked, model.complete)]

    events = asyncio.run(collect())
    for event in events:
        EVENTS.validate_python(event, strict=False)
    Response.model_validate(draft.response)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events, draft.response


def test_text_comes_as_one_message() -> None:
    model = Model(chunk(role="assistant"), chunk(content="Hi "), chunk(content="Ada"),
                  chunk("stop"), USAGE)  # fmt: skip
    events, response = write(model)
    assert [event["type"].removeprefix("response.") for event in events] == [
        "created", "in_progress", "output_item.added", "content_part.added",
        "output_text.delta", "output_text.delta", "output_text.done", "content_part.done",
        "output_item.done", "completed",
    ]  # fmt: skip
    assert response["output"][0]["content"][0]["text"] == "Hi Ada"
    assert response["usage"]["total_tokens"] == 13
    assert response["usage"]["input_tokens_details"]["cached_tokens"] == 3
    assert events[-1]["response"] == response


def test_what_was_told_is_not_changed_by_what_comes_later() -> None:
    model = Model(chunk(content="Hi "), chunk(content="Ada"), chunk("stop"), USAGE)
    events, _ = write(model)
    added = next(event for event in events if event["type"] == "response.output_item.added")
    part = next(event for event in events if event["type"] == "response.content_part.added")
    assert added["item"]["content"] == []
    assert part["part"]["text"] == ""
    assert events[0]["response"]["output"] == []


def test_calls_of_functions_come_as_items_with_their_arguments() -> None:
    model = Model(
        chunk(content="Let me see."),
        called(0, "call_1", "weather", ""),
        called(0, None, None, '{"city":'),
        called(0, None, None, '"Rome"}'),
        called(1, "call_2", "weather", "{}"),
        chunk("tool_calls"),
        USAGE,
    )
    events, response = write(model, tools=[FUNCTION])
    message, first, second = response["output"]
    assert message["type"] == "message"
    assert (first["call_id"], first["arguments"]) == ("call_1", '{"city":"Rome"}')
    assert second["call_id"] == "call_2"
    done = [e for e in events if e["type"] == "response.function_call_arguments.done"]
    assert [event["arguments"] for event in done] == ['{"city":"Rome"}', "{}"]
    assert response["status"] == "completed"
    assert {item["status"] for item in response["output"]} == {"completed"}


def test_an_answer_cut_short_is_incomplete() -> None:
    events, response = write(Model(chunk(content="Hi"), chunk("length"), USAGE))
    assert response["status"] == "incomplete"
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert events[-1]["type"] == "response.incomplete"


@pytest.mark.parametrize(
    "chunks", [[chunk(content="Hi")], [chunk(content="Hi"), {"error": {"message": "gone"}}]]
)
def test_a_model_that_breaks_off_is_a_failed_response(chunks: list[Any]) -> None:
    events, response = write(Model(*chunks))
    assert events[-1]["type"] == "response.failed"
    assert response["status"] == "failed"
    assert response["error"]["code"] == "server_error"
    assert response["output"][0]["status"] == "incomplete"


def test_what_the_model_refuses_has_its_status_and_words() -> None:
    model = Model({"error": {"message": "too many tokens"}}, status=400)
    with pytest.raises(HTTPException, match="too many tokens") as refused:
        write(model)
    assert refused.value.status_code == 400
    with pytest.raises(EngineFailed):
        write(Model({"error": {"message": "crashed"}}, status=500))


def test_a_request_becomes_a_chat_completion() -> None:
    body = ResponsesBody.model_validate(
        {
            "model": "small",
            "instructions": "Be brief.",
            "input": [
                {"role": "developer", "content": "Speak Latin."},
                {"role": "user", "content": [{"type": "input_text", "text": "Weather?"}]},
                {"type": "function_call", "call_id": "a", "name": "weather", "arguments": "{}"},
                {"type": "function_call", "call_id": "b", "name": "weather", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "a", "output": "rain"},
            ],
            "tools": [FUNCTION],
            "tool_choice": {"type": "function", "name": "weather"},
            "max_output_tokens": 50,
            "text": {"format": {"type": "json_schema", "name": "w", "schema": {"type": "object"}}},
        }
    )
    asked = as_chat_body(body, as_messages(body.items))
    assert [message["role"] for message in asked["messages"]] == [
        "system", "system", "user", "assistant", "tool",
    ]  # fmt: skip
    assert [call["id"] for call in asked["messages"][3]["tool_calls"]] == ["a", "b"]
    assert asked["tools"][0]["function"]["name"] == "weather"
    assert asked["tool_choice"] == {"type": "function", "function": {"name": "weather"}}
    assert asked["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert asked["max_completion_tokens"] == 50
    assert asked["stream_options"] == {"include_usage": True}


def test_an_answer_can_be_gone_on_from() -> None:
    model = Model(chunk(content="Rome"), called(0, "c", "weather", "{}"), chunk("stop"), USAGE)
    _, response = write(model, tools=[FUNCTION])
    (message,) = output_messages(response["output"])
    assert message["content"] == "Rome"
    assert message["tool_calls"][0]["id"] == "c"

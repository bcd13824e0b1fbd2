"""From a request of Responses to what is asked of a chat model, or of a collection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from infra.errors import InvalidRequest
from service.engines import Turn
from service.schemas.responses import (
    CallItem,
    CallOutputItem,
    Item,
    MessageItem,
    ResponsesBody,
    TextFormat,
    ToolChoice,
)

Message: TypeAlias = dict[str, Any]
"""Of a chat completion."""


def as_messages(items: Sequence[Item]) -> list[Message]:
    """Return items as chat messages; calls that follow each other are one message's."""
    messages: list[Message] = []
    for item in items:
        match item:
            case MessageItem():
                role = "system" if item.role == "developer" else item.role
                messages.append({"role": role, "content": item.text})
            case CallItem():
                _append_call(messages, item)
            case CallOutputItem():
                messages.append(
                    {"role": "tool", "tool_call_id": item.call_id, "content": item.text}
                )
    return messages


def output_messages(output: Sequence[dict[str, Any]]) -> list[Message]:
    """Return the output of a response as chat messages, for the turns that follow it."""
    messages: list[Message] = []
    for item in output:
        if item["type"] == "message":
            text = "".join(part["text"] for part in item["content"])
            messages.append({"role": "assistant", "content": text})
        elif item["type"] == "function_call":
            _append_call(messages, CallItem.model_validate(item))
    return messages


def as_chat_body(body: ResponsesBody, messages: Sequence[Message]) -> dict[str, Any]:
    """Return the chat completion that answers a request; always streamed, always with its usage."""
    system = [{"role": "system", "content": body.instructions}] if body.instructions else []
    asked: dict[str, Any] = {
        "model": body.model,
        "messages": [*system, *messages],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_completion_tokens": body.max_output_tokens,
        "temperature": body.temperature,
        "top_p": body.top_p,
        "user": body.user or body.safety_identifier,
        "parallel_tool_calls": body.parallel_tool_calls if body.functions else None,
        "tools": [_as_chat_tool(tool) for tool in body.functions] or None,
        "tool_choice": _as_chat_choice(body.tool_choice) if body.functions else None,
        "response_format": _as_response_format(body.text.format) if body.text else None,
    }
    return {name: value for name, value in asked.items() if value is not None}


def as_question(
    messages: Sequence[Message], *, instructions: str | None = None
) -> tuple[str, tuple[Turn, ...]]:
    """Return the last message, which must be the user's, and what was said before.

    Instructions are what the application says first, as the system message of a chat.

    Raises:
        InvalidRequest: the last message is not the user's.
    """
    if not messages or messages[-1]["role"] != "user":
        raise InvalidRequest("The last item must be the user's message", parameter="input")
    first = (Turn("system", instructions),) if instructions else ()
    history = tuple(
        Turn(message["role"], message["content"])
        for message in messages[:-1]
        if message["role"] in {"system", "user", "assistant"} and message.get("content")
    )
    return messages[-1]["content"], (*first, *history)


def _append_call(messages: list[Message], item: CallItem) -> None:
    call = {
        "id": item.call_id,
        "type": "function",
        "function": {"name": item.name, "arguments": item.arguments},
    }
    if messages and messages[-1]["role"] == "assistant":
        messages[-1].setdefault("tool_calls", []).append(call)
    else:
        messages.append({"role": "assistant", "content": None, "tool_calls": [call]})


def _as_chat_tool(tool: Any) -> dict[str, Any]:
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
        "strict": tool.strict,
    }
    given = {name: value for name, value in function.items() if value is not None}
    return {"type": "function", "function": given}


def _as_chat_choice(choice: str | ToolChoice | None) -> Any:
    if isinstance(choice, ToolChoice):
        return {"type": "function", "function": {"name": choice.name}}
    return choice


def _as_response_format(wanted: TextFormat) -> dict[str, Any] | None:
    if wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return {"type": "json_object"}
    schema = {"name": wanted.name, "schema": wanted.schema_, "strict": wanted.strict}
    given = {name: value for name, value in schema.items() if value is not None}
    return {"type": "json_schema", "json_schema": given}

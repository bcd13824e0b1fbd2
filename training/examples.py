"""What a row says, by the columns that the method needs: conversations, or prompts with answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import orjson

from infra.expectations.text_rules import Chat
from infra.expectations.turns import find_fault

Messages = list[dict[str, Any]]
Shape = Literal["messages", "completion", "text", "pair", "marked"]
"""Of a row: a conversation; a prompt and its completion; a text; two answers to one prompt, of
which one is better; an answer that is good or bad."""

_COLUMNS: Mapping[Shape, tuple[str, ...]] = {
    "messages": ("messages",),
    "completion": ("prompt", "completion"),
    "text": ("text",),
    "pair": ("chosen", "rejected"),
    "marked": ("prompt", "completion", "label"),
}
SHAPES: Mapping[str, tuple[Shape, ...]] = {
    "sft": ("messages", "completion", "text"),
    "dpo": ("pair",),
    "kto": ("marked",),
    "reward": ("pair",),
}
"""That a method learns from."""
_TRAINED = Chat(rule="chat", column="messages")
_PROMPT = Chat(rule="chat", column="prompt", last="any", min_messages=1)


class Wrong(ValueError):
    """A row cannot be what the method needs."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages of which the last is the assistant's."""

    messages: Messages
    tools: list[dict[str, Any]] | None = None
    prompt: int | None = None
    """How many of them are the prompt, where the row tells prompt and completion apart."""
    mark: bool | None = None
    """Whether the answer is good, where the row says so."""


@dataclass(frozen=True, slots=True)
class Text:
    """Plain text, of which the prompt may be empty."""

    prompt: str
    completion: str
    mark: bool | None = None
    """Whether the completion is good, where the row says so."""


Sequence = Conversation | Text


def shape_of(columns: Mapping[str, Any], method: str) -> Shape:
    """Return what rows with these columns are.

    Raises:
        Wrong: nothing that the method learns from; says which columns it needs.
    """
    for shape in SHAPES[method]:
        if all(name in columns for name in _COLUMNS[shape]):
            return shape
    needed = " or ".join("+".join(_COLUMNS[shape]) for shape in SHAPES[method])
    raise Wrong(f"has the columns {', '.join(columns) or 'of none'}; {method} needs {needed}")


def sequences(row: Mapping[str, Any], shape: Shape) -> list[Sequence]:
    """Return what of a row is tokenised: one sequence, or the better and the worse one.

    Raises:
        Wrong: a column is missing, empty or not what it must be.
    """
    for name in _COLUMNS[shape]:
        if row.get(name) is None:
            raise Wrong(f"no {name!r}")
    tools = _tools(row.get("tools"))
    if shape == "messages":
        return [Conversation(_checked(row["messages"], _TRAINED), tools)]
    if shape == "text":
        return [Text("", _text(row["text"], "text"))]
    if shape == "pair":
        return _pair(row, tools)
    found = _completed(row["prompt"], row["completion"], tools, "completion")
    if shape != "marked":
        return [found]
    if not isinstance(row["label"], bool):
        raise Wrong(f"the label {row['label']!r} is neither true nor false")
    return [replace(found, mark=row["label"])]


def _pair(row: Mapping[str, Any], tools: list[dict[str, Any]] | None) -> list[Sequence]:
    if row["chosen"] == row["rejected"]:
        raise Wrong("chosen and rejected are the same")
    prompt = row.get("prompt")
    if prompt is not None:
        return [_completed(prompt, row[name], tools, name) for name in ("chosen", "rejected")]
    if isinstance(row["chosen"], str):
        return [Text("", _text(row[name], name)) for name in ("chosen", "rejected")]
    found = [_checked(row[name], _TRAINED) for name in ("chosen", "rejected")]
    shared = 0
    for one, other in zip(*found, strict=False):
        if one != other:
            break
        shared += 1
    if not shared:
        raise Wrong("chosen and rejected do not begin with the same prompt")
    return [Conversation(messages, tools, prompt=shared) for messages in found]


def _completed(
    prompt: Any, completion: Any, tools: list[dict[str, Any]] | None, name: str
) -> Sequence:
    if isinstance(prompt, str) != isinstance(completion, str):
        raise Wrong(f"prompt and {name} are not both text or both messages")
    if isinstance(prompt, str):
        return Text(_text(prompt, "prompt"), _text(completion, name))
    if not isinstance(completion, list):
        raise Wrong(f"the {name} is neither text nor messages")
    asked = _checked(prompt, _PROMPT)
    return Conversation(_checked([*asked, *completion], _TRAINED), tools, prompt=len(asked))


def _checked(messages: Any, rule: Chat) -> Messages:
    fault = find_fault(messages, rule)
    if fault is not None:
        where = f"message {fault.message}: " if fault.message is not None else ""
        raise Wrong(f"{where}{fault.what}" + (f" ({fault.detail})" if fault.detail else ""))
    if isinstance(messages, str):
        messages = orjson.loads(messages)
    return [_message(message, number) for number, message in enumerate(messages, start=1)]


def _message(given: Mapping[str, Any], number: int) -> dict[str, Any]:
    """Return a message as servers give it to a template: its content a text, arguments objects."""
    # Tables give every message all columns; a template asks whether one is there.
    message = {name: value for name, value in given.items() if value is not None}
    if message.pop("weight", 1) != 1:
        raise Wrong(
            f"message {number}: of weight {given['weight']!r}, and every message of the assistant "
            "is learned here; leave the weight out, or end the conversation before the message"
        )
    if isinstance(message.get("content"), list):
        message["content"] = "".join(_part(part, number) for part in message["content"])
    if "tool_calls" in message:
        message["tool_calls"] = [_call(call) for call in message["tool_calls"]]
    return message


def _part(part: Any, number: int) -> str:
    text = part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None
    if not isinstance(text, str):
        raise Wrong(f"message {number}: a part of its content is no text; only text is learned")
    return text


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    """Return a call with arguments that a template writes as JSON once, not twice."""
    function = call["function"]
    if not isinstance(function.get("arguments"), str):
        return dict(call)
    return {
        **call,
        "function": {**function, "arguments": orjson.loads(function["arguments"] or "{}")},
    }


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise Wrong(f"the {name} is no text")
    if not value.strip():
        raise Wrong(f"an empty {name}")
    return value


def _tools(value: Any) -> list[dict[str, Any]] | None:
    if value is None or value == []:
        return None
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        raise Wrong("the tools are no list of JSON schemas")
    return value

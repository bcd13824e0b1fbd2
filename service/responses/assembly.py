"""Puts a response together piece by piece and tells each step as the event OpenAI names for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

from infra.contracts import Usage
from infra.security import new_id

Event: TypeAlias = dict[str, Any]
Ending: TypeAlias = Literal["completed", "incomplete", "failed"]
ENDINGS: Mapping[str, tuple[Ending, str | None]] = {
    "stop": ("completed", None),
    "tool_calls": ("completed", None),
    "length": ("incomplete", "max_output_tokens"),
    "content_filter": ("incomplete", "content_filter"),
}
"""By the finish reason of a chat completion: the status, and why the response is not whole."""


class Assembly:
    """One response while it is written; every method returns the events that it causes.

    Text and function calls become output items in the order in which they begin; an item ends when
    the next one begins, or with the response.
    """

    def __init__(self, response: dict[str, Any], *, clock: Callable[[], float] = time.time) -> None:
        """Take the response as it stands before anything is known of its output."""
        self.response = response
        self._clock = clock
        self._output: list[dict[str, Any]] = response["output"]
        self._sequence = 0
        self._open: dict[str, Any] | None = None
        self._arguments: dict[int, dict[str, Any]] = {}

    def begin(self) -> list[Event]:
        """Tell that the response exists and is worked on."""
        return [
            self._event("response.created", response=self._snapshot()),
            self._event("response.in_progress", response=self._snapshot()),
        ]

    def search(self, query: str) -> list[Event]:
        """Tell that documents are searched."""
        item = self._item("file_search_call", "fs_", queries=[query], results=None)
        place = self._place(item)
        return [
            self._event("response.output_item.added", item=dict(item), **_index(place)),
            self._event("response.file_search_call.in_progress", **place),
            self._event("response.file_search_call.searching", **place),
        ]

    def found(self, results: Sequence[Mapping[str, Any]] | None) -> list[Event]:
        """Tell that the search is over; `results` are shown where the caller asked for them."""
        item = self._open
        if item is None or item["type"] != "file_search_call":
            return []
        item["results"] = None if results is None else [dict(result) for result in results]
        done = self._event("response.file_search_call.completed", **self._place(item))
        return [done, *self._close()]

    def text(self, delta: str) -> list[Event]:
        """Append to the message, which begins with its first text."""
        events = self._message()
        part, place = self._part()
        part["text"] += delta
        events.append(self._event("response.output_text.delta", **place, delta=delta, logprobs=[]))
        return events

    def annotate(self, annotation: Mapping[str, Any]) -> list[Event]:
        """Append a citation to the message."""
        events = self._message()
        part, place = self._part()
        part["annotations"].append(dict(annotation))
        events.append(
            self._event(
                "response.output_text.annotation.added",
                **place,
                annotation_index=len(part["annotations"]) - 1,
                annotation=dict(annotation),
            )
        )
        return events

    def call(self, index: int, *, call_id: str, name: str, arguments: str) -> list[Event]:
        """Append to the arguments of a function call; `index` tells the calls of a model apart."""
        events: list[Event] = []
        item = self._arguments.get(index)
        if item is None:
            events += self._close()
            item = self._item(
                "function_call", "fc_", call_id=call_id or new_id("call_"), name=name, arguments=""
            )
            self._arguments[index] = item
            place = self._place(item)
            events.append(
                self._event("response.output_item.added", item=dict(item), **_index(place))
            )
        if arguments:
            item["arguments"] += arguments
            place = self._place(item)
            events.append(
                self._event("response.function_call_arguments.delta", **place, delta=arguments)
            )
        return events

    def finish(self, finish_reason: str, usage: Usage, *, cached_tokens: int = 0) -> list[Event]:
        """End the response; the last event carries it whole."""
        status, reason = ENDINGS.get(finish_reason, ("completed", None))
        events = self._close(status)
        self.response["status"] = status
        self.response["incomplete_details"] = {"reason": reason} if reason else None
        self.response["usage"] = {
            "input_tokens": usage.prompt_tokens,
            "input_tokens_details": {"cached_tokens": cached_tokens, "cache_write_tokens": 0},
            "output_tokens": usage.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage.total_tokens,
        }
        if status == "completed":
            self.response["completed_at"] = int(self._clock())
        return [*events, self._event(f"response.{status}", response=self._snapshot())]

    def fail(self, code: str, message: str) -> list[Event]:
        """End the response with an error."""
        events = self._close("incomplete")
        self.response["status"] = "failed"
        self.response["error"] = {"code": code, "message": message}
        return [*events, self._event("response.failed", response=self._snapshot())]

    def _message(self) -> list[Event]:
        if self._open is not None and self._open["type"] == "message":
            return []
        events = self._close()
        item = self._item("message", "msg_", role="assistant", content=[])
        place = self._place(item)
        events.append(
            self._event("response.output_item.added", item={**item, "content": []}, **_index(place))
        )
        part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        item["content"].append(part)
        events.append(
            self._event(
                "response.content_part.added",
                **place,
                content_index=0,
                part={**part, "annotations": []},
            )
        )
        return events

    def _part(self) -> tuple[dict[str, Any], dict[str, Any]]:
        item = self._open
        if item is None:  # callers have begun a message
            raise AssertionError("no message is open")
        return item["content"][0], {**self._place(item), "content_index": 0}

    def _item(self, kind: str, prefix: str, **more: Any) -> dict[str, Any]:
        item = {"id": new_id(prefix), "type": kind, "status": "in_progress", **more}
        self._output.append(item)
        self._open = item
        return item

    def _close(self, status: Ending = "completed") -> list[Event]:
        item, self._open = self._open, None
        if item is None:
            return []
        item["status"] = "completed" if status == "completed" else "incomplete"
        place = self._place(item)
        events: list[Event] = []
        if item["type"] == "message":
            part = item["content"][0]
            where = {**place, "content_index": 0}
            done = {"text": part["text"], "logprobs": []}
            events.append(self._event("response.output_text.done", **where, **done))
            events.append(self._event("response.content_part.done", **where, part=_copy(part)))
        elif item["type"] == "function_call":
            done = {"name": item["name"], "arguments": item["arguments"]}
            events.append(self._event("response.function_call_arguments.done", **place, **done))
        events.append(self._event("response.output_item.done", item=_copy(item), **_index(place)))
        return events

    def _place(self, item: Mapping[str, Any]) -> dict[str, Any]:
        at = next(at for at, other in enumerate(self._output) if other is item)
        return {"item_id": item["id"], "output_index": at}

    def _event(self, kind: str, **more: Any) -> Event:
        self._sequence += 1
        return {"type": kind, "sequence_number": self._sequence - 1, **more}

    def _snapshot(self) -> dict[str, Any]:
        return {**self.response, "output": [_copy(item) for item in self._output]}


def _index(place: Mapping[str, Any]) -> dict[str, Any]:
    return {"output_index": place["output_index"]}


def _copy(item: Mapping[str, Any]) -> dict[str, Any]:
    """Copy an item or a part deep enough that what is added later does not show in it."""
    copied = dict(item)
    for name in ("content", "annotations"):
        if isinstance(copied.get(name), list):
            copied[name] = [dict(each) for each in copied[name]]
    return copied

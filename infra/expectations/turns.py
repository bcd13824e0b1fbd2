"""Follows a conversation: whose turn it is, and which tool calls wait for an answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from infra.expectations.report import shown
from infra.expectations.text_rules import Chat
from infra.expectations.tool_calls import Wrong, call_ids, check_function, loaded

_DEVELOPER = "developer"
"""What newer models call the system."""


class Fault(NamedTuple):
    """What is wrong with a conversation."""

    what: str
    message: int | None = None
    """Counted from 1; `None` if it is the whole."""
    detail: str = ""


class Turns:
    """The state of one conversation after the messages taken so far."""

    def __init__(self, rule: Chat) -> None:
        self._rule = rule
        self._next = {rule.system, rule.user}
        self._open: list[str | None] = []
        self._last = ""

    def take(self, message: Any) -> None:
        """Go on by a message; raises `Wrong` if it must not come here."""
        if not isinstance(message, dict):
            raise Wrong("a message is no object")
        role = self._role(message)
        if role not in self._next:
            raise Wrong(self._out_of_turn(role), f"{role!r} after {self._last!r}")
        calls = self._calls(message, role)
        if _is_empty(message.get(self._rule.content_field)) and not calls:
            raise Wrong(f"an empty message of {role!r}")
        if role == self._rule.tool:
            self._answer(message)
        self._open += calls
        self._next = self._following(role)
        self._last = role

    def end(self) -> Fault | None:
        """Return what is wrong with ending here."""
        rule = self._rule
        speaker = rule.assistant if self._last == rule.call else self._last
        wanted = {"assistant": rule.assistant, "user": rule.user}.get(rule.last)
        if wanted is not None and speaker != wanted:
            return Fault(f"the last message is not of {wanted!r}", detail=f"but of {speaker!r}")
        return None

    def _role(self, message: Mapping[str, Any]) -> str:
        rule = self._rule
        role = message.get(rule.role_field)
        if role == _DEVELOPER and rule.system == "system":
            return rule.system
        known = {rule.system, rule.user, rule.assistant, rule.tool, rule.call}
        if not isinstance(role, str) or role not in known:
            raise Wrong("an unknown role", str(shown(role)))
        return role

    def _out_of_turn(self, role: str) -> str:
        rule = self._rule
        if role == rule.system:
            return "a system message after the beginning"
        if role == rule.tool:
            return "an answer of a tool that was not called"
        if self._open and self._last != "":
            return "a tool call without an answer"
        if self._last in {"", rule.system}:
            return f"{rule.user!r} does not speak first"
        return f"{role!r} speaks out of turn"

    def _calls(self, message: Mapping[str, Any], role: str) -> list[str | None]:
        """Return the ids of a message's tool calls."""
        rule = self._rule
        if role == rule.call:
            check_function(loaded(message.get(rule.content_field)))
            return [None]
        calls = message.get("tool_calls")
        if calls is None or (calls == [] and role != rule.assistant):
            return []
        if role != rule.assistant:
            raise Wrong("tool calls of another role than the assistant's")
        if not isinstance(calls, list):
            raise Wrong("tool calls that are not a list")
        return list(call_ids(calls))

    def _answer(self, message: Mapping[str, Any]) -> None:
        given = message.get("tool_call_id")
        if given is None or given == "":
            self._open.pop(0)
        elif given in self._open:
            self._open.remove(given)
        elif None in self._open:
            self._open.remove(None)
        else:
            raise Wrong("an answer to a tool call that there is not", str(shown(given)))

    def _following(self, role: str) -> set[str]:
        rule = self._rule
        speakers = {rule.assistant, *([rule.call] if rule.call else [])}
        if self._open:
            return {rule.tool, *([rule.call] if role == rule.call and rule.call else [])}
        if role == rule.system:
            return {rule.user}
        if role == rule.tool:
            return speakers
        if not rule.alternate:
            return {rule.user, *speakers}
        return speakers if role == rule.user else {rule.user}


def find_fault(messages: Any, rule: Chat) -> Fault | None:
    """Return the first thing that is wrong with a conversation, or `None`."""
    if isinstance(messages, str):
        try:
            messages = orjson.loads(messages)
        except orjson.JSONDecodeError:
            return Fault("the messages are not JSON")
    if not isinstance(messages, list):
        return Fault("the messages are not a list")
    if len(messages) < rule.min_messages:
        return Fault(f"fewer than {rule.min_messages} messages")
    if rule.max_messages is not None and len(messages) > rule.max_messages:
        return Fault(f"more than {rule.max_messages} messages")
    turns = Turns(rule)
    for number, message in enumerate(messages, start=1):
        try:
            turns.take(message)
        except Wrong as wrong:
            return Fault(wrong.what, number, wrong.detail)
    return turns.end()


def _is_empty(content: Any) -> bool:
    if isinstance(content, list):
        return not content or any(not isinstance(part, dict | str) or not part for part in content)
    if isinstance(content, dict):
        return not content
    return not isinstance(content, str) or not content.strip()

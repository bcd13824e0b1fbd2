"""Tool calls in chat messages: what one must look like."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from infra.expectations.report import shown

_FUNCTION_NAME = re.compile(r"[A-Za-z0-9_.:/-]{1,128}")


class Wrong(Exception):
    """What is wrong with a message."""

    def __init__(self, what: str, detail: str = "") -> None:
        super().__init__(what)
        self.what, self.detail = what, detail


def call_ids(calls: Sequence[Any]) -> Iterator[str]:
    """Yield the ids of a message's calls; raise `Wrong` at the first that is malformed."""
    seen = set()
    for call in calls:
        if not isinstance(call, dict):
            raise Wrong("a tool call that is no object")
        if call.get("type") not in (None, "function"):
            raise Wrong("a tool call of an unknown type", str(shown(call.get("type"))))
        check_function(call.get("function"))
        identity = call.get("id")
        if not isinstance(identity, str) or not identity:
            raise Wrong("a tool call without an id")
        if identity in seen:
            raise Wrong("two tool calls with one id")
        seen.add(identity)
        yield identity


def check_function(function: Any) -> None:
    """See that a call has a name, and arguments that are an object or its JSON text."""
    if not isinstance(function, dict):
        raise Wrong("a tool call without a function")
    name = function.get("name")
    if not isinstance(name, str) or not _FUNCTION_NAME.fullmatch(name):
        raise Wrong("a tool call without the name of a function")
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        arguments = loaded(arguments or "{}")
    if not isinstance(arguments, dict | None):
        raise Wrong("a tool call whose arguments are no object")


def loaded(text: Any) -> Any:
    """Return what JSON text says, and anything else as it is."""
    if not isinstance(text, str):
        return text
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        raise Wrong("a tool call that is not JSON") from None

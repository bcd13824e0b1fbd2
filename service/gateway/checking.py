"""What may stand in a request to a model: types, ranges and sizes; the rest is the server's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from infra.errors import InvalidRequest

Check: TypeAlias = Callable[[str, Any], None]

MAX_MESSAGES = 4096
MAX_ITEMS = 4096
"""Inputs to embed, documents to rank."""
MAX_TOKENS = 10_000_000
MAX_DEPTH = 100
"""Lists and objects within each other."""
KINDS = {
    "/v1/chat/completions": ("chat", "messages"),
    "/v1/completions": ("chat", "prompt"),
    "/v1/embeddings": ("embeddings", "input"),
    "/v1/rerank": ("rerank", "documents"),
}
"""By path: what the model must do, and the parameter that cannot be absent."""


def check(path: str, body: dict[str, Any]) -> None:
    """Refuse what no server could take.

    Raises:
        InvalidRequest: names the parameter.
    """
    required = KINDS[path][1]
    if body.get(required) is None:
        raise InvalidRequest(f"{required!r} is missing", parameter=required)
    if path == "/v1/rerank" and body.get("query") is None:
        raise InvalidRequest("'query' is missing", parameter="query")
    for name, value in body.items():
        found = CHECKS.get(name)
        if found is not None and value is not None:
            found(name, value)


def check_depth(value: Any, *, depth: int = MAX_DEPTH) -> None:
    """Refuse lists and objects that lie too deep within each other.

    Raises:
        InvalidRequest: deeper than `depth`.
    """
    parts = [value]
    for _ in range(depth):
        parts = [
            part
            for whole in parts
            for part in (whole.values() if isinstance(whole, dict) else whole)
            if isinstance(part, dict | list)
        ]
        if not parts:
            return
    raise InvalidRequest(f"The body is nested deeper than {depth} levels")


def _number(low: float, high: float) -> Check:
    def check_number(name: str, value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _wrong(name, "a number", value)
        if not low <= value <= high:
            raise InvalidRequest(
                f"{name!r} is {value}; it lies in {low:g}..{high:g}", parameter=name
            )

    return check_number


def _integer(low: int, high: int) -> Check:
    in_range = _number(low, high)

    def check_integer(name: str, value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, int):
            raise _wrong(name, "an integer", value)
        in_range(name, value)

    return check_integer


def _of(types: Any, words: str) -> Check:
    def check_type(name: str, value: Any) -> None:
        if not isinstance(value, types):
            raise _wrong(name, words, value)

    return check_type


def _messages(name: str, value: Any) -> None:
    if not isinstance(value, list) or not value:
        raise _wrong(name, "a list of at least one message", value)
    if len(value) > MAX_MESSAGES:
        raise InvalidRequest(
            f"{name!r} holds {len(value):,} messages; send at most {MAX_MESSAGES:,}", parameter=name
        )
    for at, turn in enumerate(value):
        if not isinstance(turn, dict) or turn.get("role") not in ROLES:
            raise _wrong(f"{name}[{at}]", f"an object with a role of {', '.join(ROLES)}", turn)
        content = turn.get("content")
        # An assistant may say nothing and call a function.
        may_be_silent = turn["role"] == "assistant"
        if not isinstance(content, str | list) and not (content is None and may_be_silent):
            raise _wrong(f"{name}[{at}].content", "a text or a list of parts", content)


def _items(name: str, value: Any) -> None:
    if not isinstance(value, str | list) or not value:
        raise _wrong(name, "a text or a list that is not empty", value)
    if isinstance(value, list) and len(value) > MAX_ITEMS and not isinstance(value[0], int):
        raise InvalidRequest(
            f"{name!r} holds {len(value):,} items; send at most {MAX_ITEMS:,}", parameter=name
        )


def _prompt(name: str, value: Any) -> None:
    if not isinstance(value, str | list) or value == []:
        raise _wrong(name, "a text or a list", value)


def _stop(name: str, value: Any) -> None:
    texts = value if isinstance(value, list) else [value]
    if len(texts) > 64 or not all(isinstance(text, str) for text in texts):
        raise _wrong(name, "a text or a list of at most 64 texts", value)


def _wrong(name: str, wanted: str, value: Any) -> InvalidRequest:
    shown = repr(value)
    shown = shown if len(shown) <= 60 else f"{shown[:60]}..."
    return InvalidRequest(
        f"{name!r} must be {wanted}, not {shown}", parameter=name.partition("[")[0]
    )


_BOOLEAN = _of(bool, "true or false")
_OBJECT = _of(dict, "an object")
_TEXT = _of(str, "a text")
_LIST = _of(list, "a list")
ROLES = ("system", "developer", "user", "assistant", "tool", "function")
CHECKS: Mapping[str, Check] = {
    "messages": _messages,
    "prompt": _prompt,
    "input": _items,
    "documents": _items,
    "query": _items,
    "stream": _BOOLEAN,
    "stream_options": _OBJECT,
    "max_tokens": _integer(1, MAX_TOKENS),
    "max_completion_tokens": _integer(1, MAX_TOKENS),
    "n": _integer(1, 128),
    "best_of": _integer(1, 128),
    "temperature": _number(0, 2),
    "top_p": _number(0, 1),
    "presence_penalty": _number(-2, 2),
    "frequency_penalty": _number(-2, 2),
    "seed": _integer(-(2**63), 2**63 - 1),
    "stop": _stop,
    "tools": _LIST,
    "response_format": _OBJECT,
    "logit_bias": _OBJECT,
    "top_logprobs": _integer(0, 100),
    "user": _TEXT,
    "dimensions": _integer(1, 1_000_000),
    "encoding_format": _TEXT,
    "top_n": _integer(0, 1_000_000),
}
"""By parameter; None passes, as it does at OpenAI."""

"""OpenAI's requests for a model in this process: what it can honour, and what it refuses."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from infra.errors import InvalidRequest

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
DEFAULT_COMPLETION_TOKENS = 16
MAX_STOPS = 16
IGNORED = frozenset({"user", "metadata", "safety_identifier", "prompt_cache_key", "service_tier"})
"""Say who asks and how it is counted, not what comes out."""
NEUTRAL: Mapping[str, Sequence[Any]] = {
    "n": (1,),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    "store": (False,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "functions": ([],),
    "response_format": ({"type": "text"},),
    "reasoning_effort": (),
    "modalities": (["text"],),
}
"""Parameters that are known and not supported; beside null, these values ask for nothing."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    """0 considers all tokens."""
    min_p: float = 0.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int = 0
    logprobs: int | None = None
    """Alternatives to report for each token; None reports nothing."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request, understood."""

    path: str
    model: str
    content: Any
    """Messages, a text, or tokens."""
    sampling: Sampling
    max_tokens: int | None
    stops: tuple[str, ...]
    ignore_end: bool
    is_stream: bool
    wants_usage: bool

    @property
    def is_chat(self) -> bool:
        return self.path == CHAT


def parse(path: str, body: bytes) -> Request:
    """Read a request.

    Raises:
        InvalidRequest: it is malformed, or asks for what cannot be done here; nothing that
            would change the answer is ignored.
    """
    try:
        given = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"The body is not JSON: {error}") from error
    if not isinstance(given, dict):
        raise InvalidRequest("The body is not a JSON object")
    fields = _Fields({name: value for name, value in given.items() if value is not None})
    stream = fields.take("stream", False, _boolean)
    options = fields.take("stream_options", {}, _object)
    request = Request(
        path=path,
        model=fields.take("model", "", _text),
        content=_messages(fields) if path == CHAT else _prompt(fields),
        sampling=_sampling(fields, is_chat=path == CHAT),
        max_tokens=_max_tokens(fields, is_chat=path == CHAT),
        stops=_stops(fields),
        ignore_end=fields.take("ignore_eos", False, _boolean),
        is_stream=stream,
        wants_usage=stream and options.get("include_usage") is True,
    )
    fields.refuse_others()
    return request


class _Fields:
    """The body's fields, taken one by one; what is left over at the end is refused."""

    def __init__(self, given: dict[str, Any]) -> None:
        self._left = given

    def take(self, name: str, default: Any, check: Callable[[str, Any], Any]) -> Any:
        return check(name, self._left.pop(name)) if name in self._left else default

    def refuse_others(self) -> None:
        for name, value in self._left.items():
            if name in IGNORED or value in NEUTRAL.get(name, ()):
                continue
            known = "is not supported by this engine" if name in NEUTRAL else "is unknown"
            raise InvalidRequest(f"{name!r} {known}; leave it out", parameter=name)


def _sampling(fields: _Fields, *, is_chat: bool) -> Sampling:
    return Sampling(
        temperature=fields.take("temperature", 1.0, _number(0, 2)),
        top_p=fields.take("top_p", 1.0, _number(1e-9, 1)),
        top_k=max(0, fields.take("top_k", 0, _whole(-1, 2**31))),
        min_p=fields.take("min_p", 0.0, _number(0, 1)),
        frequency_penalty=fields.take("frequency_penalty", 0.0, _number(-2, 2)),
        presence_penalty=fields.take("presence_penalty", 0.0, _number(-2, 2)),
        repetition_penalty=fields.take("repetition_penalty", 1.0, _number(0.01, 10)),
        logit_bias=fields.take("logit_bias", {}, _bias),
        seed=fields.take("seed", secrets.randbits(62), _whole(-(2**63), 2**63 - 1)),
        logprobs=_logprobs(fields, is_chat=is_chat),
    )


def _logprobs(fields: _Fields, *, is_chat: bool) -> int | None:
    if not is_chat:
        count: int | None = fields.take("logprobs", None, _whole(0, 20))
        return count
    wanted = fields.take("logprobs", False, _boolean)
    top: int = fields.take("top_logprobs", 0, _whole(0, 20))
    if top and not wanted:
        raise InvalidRequest("'top_logprobs' needs 'logprobs'", parameter="top_logprobs")
    return top if wanted else None


def _max_tokens(fields: _Fields, *, is_chat: bool) -> int | None:
    whole = _whole(1, 2**31)
    older = fields.take("max_tokens", None if is_chat else DEFAULT_COMPLETION_TOKENS, whole)
    limit: int | None = fields.take("max_completion_tokens", older, whole)
    return limit


def _stops(fields: _Fields) -> tuple[str, ...]:
    def check(name: str, value: Any) -> tuple[str, ...]:
        stops = [value] if isinstance(value, str) else value
        if not _are(stops, str) or len(stops) > MAX_STOPS or "" in stops:
            raise InvalidRequest(
                f"{name!r} is a text or a list of at most {MAX_STOPS}, none of them empty",
                parameter=name,
            )
        return tuple(stops)

    stops: tuple[str, ...] = fields.take("stop", (), check)
    return stops


def _messages(fields: _Fields) -> list[dict[str, str]]:
    def check(name: str, value: Any) -> list[dict[str, str]]:
        if not _are(value, dict) or not value:
            raise InvalidRequest("'messages' is a list of messages", parameter=name)
        return [
            {
                "role": _text("messages.role", message.get("role")),
                "content": _content(message.get("content")),
            }
            for message in value
        ]

    messages: list[dict[str, str]] = fields.take("messages", None, check)
    if messages is None:
        raise InvalidRequest("'messages' is missing", parameter="messages")
    return messages


def _content(value: Any) -> str:
    if isinstance(value, str):
        return value
    if _are(value, dict) and all(part.get("type") == "text" for part in value):
        return "".join(_text("messages.content.text", part.get("text")) for part in value)
    raise InvalidRequest("A message's 'content' is text, or parts of text", parameter="messages")


def _prompt(fields: _Fields) -> str | list[int]:
    def check(name: str, value: Any) -> str | list[int]:
        if isinstance(value, list) and len(value) == 1 and not isinstance(value[0], int):
            value = value[0]
        if isinstance(value, str) or (_are(value, int) and value and min(value) >= 0):
            return value
        raise InvalidRequest("'prompt' is one text, or one list of tokens", parameter=name)

    prompt: str | list[int] | None = fields.take("prompt", None, check)
    if prompt is None:
        raise InvalidRequest("'prompt' is missing", parameter="prompt")
    return prompt


def _bias(name: str, value: Any) -> dict[int, float]:
    biases = _object(name, value)
    if not all(token.isdecimal() and len(token) < 10 for token in biases):
        raise InvalidRequest(f"{name!r} has token ids as its keys", parameter=name)
    bound = _number(-100, 100)
    return {int(token): bound(name, bias) for token, bias in biases.items()}


def _number(low: float, high: float) -> Callable[[str, Any], float]:
    def check(name: str, value: Any) -> float:
        if type(value) not in {int, float} or not low <= value <= high:
            raise InvalidRequest(
                f"{name!r} is {value!r}; it is a number from {low:g} to {high:g}", parameter=name
            )
        return float(value)

    return check


def _whole(low: int, high: int) -> Callable[[str, Any], int]:
    def check(name: str, value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise InvalidRequest(
                f"{name!r} is {value!r}; it is a whole number from {low} to {high}", parameter=name
            )
        return value

    return check


def _boolean(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise InvalidRequest(f"{name!r} is {value!r}; it is true or false", parameter=name)
    return value


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise InvalidRequest(f"{name!r} is text", parameter=name)
    return value


def _object(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidRequest(f"{name!r} is an object", parameter=name)
    return value


def _are(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(
        isinstance(item, kind) and not isinstance(item, bool) for item in value
    )

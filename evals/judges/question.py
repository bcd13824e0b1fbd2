"""What a judge is asked and what it replies; who sends it is for the service to say."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True)
class Question:
    """One chat completion with an answer of a given form."""

    model: str
    messages: Sequence[Mapping[str, str]]
    """`role` and `content`."""
    schema: Mapping[str, Any]
    """The JSON Schema of the answer."""
    seed: int = 0
    temperature: float = 0.0
    max_tokens: int = 2048
    is_strict: bool = False
    """Whether the schema has what OpenAI's strict mode asks for: all keys required, no others."""
    url: str = ""
    """Of the judge's server, without `/v1`; that of the environment's `JUDGE_URL` if empty."""
    key_variable: str = "JUDGE_API_KEY"
    """The environment variable that holds the key, which may be absent."""
    timeout_seconds: float = 60.0
    """For the whole answer, retries included."""

    def body(self) -> dict[str, Any]:
        """Return the request's body: all that decides the answer, and so what it is kept by.

        The address is no part of it, so that a run can be repeated without the server.
        """
        form: dict[str, Any] = {"name": "judgement", "schema": dict(self.schema)}
        if self.is_strict:
            form["strict"] = True
        return {
            "model": self.model,
            "messages": [dict(each) for each in self.messages],
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "seed": self.seed,
            "response_format": {"type": "json_schema", "json_schema": form},
        }


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back, which need not be what was asked for."""

    text: str = ""
    refusal: str = ""
    finish_reason: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values, in the form of a choice of OpenAI's."""
        message = {"content": self.text or None, "refusal": self.refusal or None}
        return {"message": message, "finish_reason": self.finish_reason or None}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Reply:
        """Return what `as_dict` wrote, or a server's choice.

        Raises:
            KeyError, TypeError, AttributeError: it is none.
        """
        message = value["message"]
        given = (message.get("content"), message.get("refusal"), value.get("finish_reason"))
        return cls(*(each if isinstance(each, str) else "" for each in given))


Ask: TypeAlias = Callable[[Question], Awaitable[Reply]]
"""Puts a question to the judge's server.

Raises:
    EngineFailed, Overloaded: there is no answer, after retries.
    InvalidConfiguration: it is not said where the server is.
"""

"""What models are asked in an evaluation, and what their stream of events becomes."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from evals.refusals import declines
from evals.target_kinds import ModelTarget, UrlTarget
from evals.trial import Case, Output
from infra.contracts import Usage
from infra.errors import InvalidRequest
from service.generation.chat import read


def body_of(kind: ModelTarget | UrlTarget, case: Case, seed: int) -> dict[str, Any]:
    """Return the body of a chat completion.

    Raises:
        InvalidRequest: the case's input is neither a text nor a list of messages.
    """
    if isinstance(case.input, str):
        messages = [{"role": "user", "content": case.input}]
    elif isinstance(case.input, list):
        messages = list(case.input)
    else:
        raise InvalidRequest(
            f"Case {case.id!r} is {case.input!r:.60}; a model is asked a text or a list of messages"
        )
    if kind.system is not None:
        messages.insert(0, {"role": "system", "content": kind.system})
    return {
        "model": kind.model,
        "messages": messages,
        "max_tokens": kind.max_tokens,
        "temperature": kind.temperature,
        "seed": seed,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def output_of(
    kind: ModelTarget | UrlTarget, events: AsyncGenerator[bytes, None], *, cost: float | None = None
) -> Output:
    """Return the whole answer.

    Raises:
        EngineFailed: the stream broke off, or is none.
    """
    text, usage, reason = "", Usage(), None
    async with aclosing(events):
        async for piece in read(events, name=kind.model):
            text += piece.text
            usage = piece.usage or usage
            reason = piece.finish_reason or reason
    return Output(
        text,
        answerable=not declines(text, kind.refusals),
        usage=usage,
        cost=cost,
        raw={"finish_reason": reason},
    )

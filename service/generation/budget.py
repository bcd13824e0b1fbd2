"""What fits into a model's context: the lowest ranked passages go first, then the oldest turns."""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import TypeAlias

from infra.errors import TooLarge
from service.generation.chat import Message

MESSAGE_TOKENS = 8
"""What a chat template adds to a message, at most, for its role and its end."""
MIN_ANSWER_TOKENS = 16
RECOUNTS = 4
_SAFETY = 1.02
_CLOSE = 1.5
"""An estimate this much below the limit is believed."""

_RUNS = re.compile(r"[A-Za-z]+|[ ]+|[^A-Za-z ]")

Compose: TypeAlias = "Callable[[Plan], list[dict[str, str]]]"
Count: TypeAlias = Callable[[Sequence[Message]], Awaitable[int | None]]


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of everything goes into a prompt."""

    passages: int
    """The best ranked ones."""
    turns: int
    """The latest ones."""
    examples: int


@dataclass(frozen=True, slots=True)
class Fitted:
    """A prompt that fits."""

    messages: list[dict[str, str]]
    plan: Plan
    max_tokens: int
    """What the answer may have."""
    left_out: Mapping[str, int] = field(default_factory=dict)


def estimate(text: str) -> int:
    """Tokens of a text, more than tokenizers of language models make of it.

    A run of letters is taken for a token every three, every other character of ASCII for one of
    its own, spaces between words for none, and other scripts for two tokens in three bytes.
    """
    total = 0.0
    for run in _RUNS.findall(text):
        if run[0] == " ":
            total += (len(run) - 1) / 4
        elif run.isascii():
            total += math.ceil(len(run) / 3)
        else:
            total += len(run.encode("utf-8", "surrogatepass")) * 2 / 3
    return math.ceil(total)


def estimate_chat(messages: Sequence[Message]) -> int:
    return sum(estimate(message["content"]) + MESSAGE_TOKENS for message in messages)


async def fit(
    compose: Compose, wanted: Plan, *, context_tokens: int | None, max_tokens: int, count: Count
) -> Fitted:
    """Return the fullest prompt that leaves room for the answer.

    Passages are dropped from the lowest rank up, but the best one stays; then turns of the
    conversation from the oldest on, then examples. The question is never cut. Where it is near the
    limit the model is asked to count, and what it counts corrects the estimate.

    Raises:
        TooLarge: the question and its best passage are too long for the model.
    """
    if context_tokens is None:
        return Fitted(compose(wanted), wanted, max_tokens)
    room = context_tokens - _reserve(max_tokens, context_tokens)
    limits = (context_tokens, max_tokens)
    plans = _less_and_less(wanted)
    guess = cache(lambda at: estimate_chat(compose(plans[at])))
    fullest = partial(_fullest, len(plans), guess, room)
    at = fullest()
    if at == 0 and guess(0) * _CLOSE <= room:
        return _fitted(compose(wanted), wanted, wanted, limits, guess(0))
    best: tuple[int, int] | None = None
    ratio = 1.0
    for _ in range(RECOUNTS):
        exact = await count(compose(plans[at]))
        if exact is None:
            break
        if exact <= room and (best is None or at < best[0]):
            best = at, exact
        ratio = exact / guess(at) * _SAFETY
        at = fullest(ratio=ratio)
        if best is not None and at >= best[0]:
            break
    if best is None:
        at = fullest(ratio=max(1.0, ratio))
        best = at, math.ceil(guess(at) * max(1.0, ratio))
    return _fitted(compose(plans[best[0]]), plans[best[0]], wanted, limits, best[1])


def _fitted(
    messages: list[dict[str, str]], plan: Plan, wanted: Plan, limits: tuple[int, int], used: int
) -> Fitted:
    context_tokens, max_tokens = limits
    dropped = {
        "passages": wanted.passages - plan.passages,
        "turns": wanted.turns - plan.turns,
        "examples": wanted.examples - plan.examples,
    }
    return Fitted(
        messages,
        plan,
        max_tokens=max(1, min(max_tokens, context_tokens - used)),
        left_out={name: number for name, number in dropped.items() if number},
    )


def _reserve(max_tokens: int, context_tokens: int) -> int:
    """For the answer: what was asked for, but no more than a quarter of a small context."""
    return max(MIN_ANSWER_TOKENS, min(max_tokens, context_tokens // 4))


def _fullest(plans: int, guess: Callable[[int], int], room: int, *, ratio: float = 1.0) -> int:
    """The first of the ever smaller prompts that fits."""
    at = bisect_left(range(plans), True, key=lambda at: guess(at) * ratio <= room)
    if at < plans:
        return at
    raise TooLarge(
        f"The question and its best passage do not fit into the {room} tokens that the model "
        "has for a prompt; ask a shorter question, or use a model with a longer context",
        parameter="question",
    )


def _less_and_less(wanted: Plan) -> list[Plan]:
    plans = [wanted]
    least = min(1, wanted.passages)
    plans += [replace(wanted, passages=n) for n in range(wanted.passages - 1, least - 1, -1)]
    plans += [replace(plans[-1], turns=n) for n in range(wanted.turns - 1, -1, -1)]
    plans += [replace(plans[-1], examples=n) for n in range(wanted.examples - 1, -1, -1)]
    return plans

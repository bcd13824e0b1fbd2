"""How long the answers to a request may be at most, by what a server reads on its path."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from service.gateway.estimate import fewest_tokens

ANSWER_TOKENS = 4096
"""Of a chat's answer where neither request nor route bounds it."""
COMPLETION_TOKENS = 16
"""Of a text completion that says nothing: what OpenAI and vLLM take then."""
MANY = {"/v1/completions": "prompt", "/v1/embeddings": "input", "/v1/rerank": "documents"}
"""By path, the parameter that may hold many prompts."""


@dataclass(frozen=True, slots=True)
class Longest:
    """How long the answers to a request may be at most."""

    each: int
    """In tokens."""
    choices: int
    """Over all prompts."""
    is_asked: bool
    """The caller said so; else it is our bound."""
    least: int
    """Tokens that one prompt and its answer take at least, if the answer is that long."""

    @property
    def total(self) -> int:
        return self.each * self.choices


def longest_answers(
    path: str, body: dict[str, Any], *, prompt: int, context: int | None
) -> Longest:
    """Return how long the answers may be at most, by what a server reads on this path.

    Args:
        path: of OpenAI's API.
        body: of the request, checked.
        prompt: the most tokens that the prompt can have.
        context: what the model reads and writes in one request, if that is known.
    """
    prompts = _count(body.get(MANY.get(path, "")))
    fewest = fewest_tokens(body, prompt) // prompts
    if path == "/v1/chat/completions":
        asked = body.get("max_completion_tokens") or body.get("max_tokens")
        otherwise = ANSWER_TOKENS if context is None else _room(context, prompt, fewest)
    elif path == "/v1/completions":
        asked, otherwise = body.get("max_tokens"), COMPLETION_TOKENS
    else:
        return Longest(0, 1, is_asked=True, least=fewest)
    each = int(asked or otherwise)
    choices = prompts * max(int(body.get("n") or 1), int(body.get("best_of") or 1))
    return Longest(each, choices, is_asked=asked is not None, least=each + fewest)


def _room(context: int, prompt: int, fewest: int) -> int:
    """Return what is left for an answer: of a text in use a token has two bytes and more."""
    room = context - prompt // 2
    return room if room >= context // 4 else max(1, context - fewest)


def _count(prompts: Any) -> int:
    """Count prompts: a text is one, and so is a list of tokens."""
    if not isinstance(prompts, list) or all(isinstance(token, int) for token in prompts):
        return 1
    return len(prompts)

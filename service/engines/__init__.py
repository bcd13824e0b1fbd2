"""Generation engines: plug-ins that turn a question and its passages into a stream of text.

A plug-in is a file with `build(context) -> Engine`. The laws, run over each by
`tests/contracts/test_engines.py`: the deltas joined are the answer, exactly one has a finish reason
and it is the last, `max_tokens` holds, closing the stream stops the work, a failure is
`EngineFailed`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, cast

from infra.contracts import Embedder, Passage, Usage
from infra.plugins import load


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """What an engine is asked: a question, the passages it may use, what was said before."""

    question: str
    passages: tuple[Passage, ...]
    history: tuple[Turn, ...] = ()
    max_tokens: int = 512


@dataclass(frozen=True, slots=True)
class Quote:
    """A passage's stretch that an engine says it used for a stretch of its answer."""

    passage: int
    """Position in `Prompt.passages`."""
    start: int
    """Within the passage's text."""
    end: int
    answer_start: int
    """Within the whole answer's text."""
    answer_end: int
    support: float
    """0 to 1, calibrated: the share of such quotes that do answer the question."""


@dataclass(frozen=True, slots=True)
class Delta:
    """The next piece of an answer; the last one carries the finish reason and the usage."""

    text: str = ""
    quotes: tuple[Quote, ...] = ()
    finish_reason: Literal["stop", "length"] | None = None
    usage: Usage | None = None
    answerable: bool = True
    """False on the last delta when the passages do not answer the question."""
    reason: str | None = None
    """Why not."""


@dataclass(frozen=True, slots=True)
class EngineContext:
    """What the service hands to an engine that wants it."""

    embedder: Embedder
    options: dict[str, Any] = field(default_factory=dict)


class Engine(Protocol):
    """Streams the answer to a prompt."""

    @property
    def name(self) -> str: ...

    def stream(self, prompt: Prompt) -> AsyncIterator[Delta]:
        """Yield the answer piece by piece.

        Raises:
            EngineFailed: the engine did not answer.
        """
        ...

    async def close(self) -> None: ...


def open_engine(name: str, context: EngineContext) -> Engine:
    """Build the engine of plug-in `name`."""
    return cast("Engine", load("service.engines", name)(context))


def count_tokens(embedder: Embedder, texts: Sequence[str]) -> int:
    """Tokens of `texts` as the embedder counts them: the unit of usage without a model."""
    return sum(len(embedder.token_spans(text)) for text in texts)

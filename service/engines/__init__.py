"""Generation engines: plug-ins that turn a question and its passages into a stream of text.

A plug-in is a file with `build(context) -> Engine`, with `build_server(context) -> ModelServer`, or
with both.

The laws of an engine, run over each by `tests/contracts/test_engines.py`: the deltas joined are the
answer, exactly one has a finish reason and it is the last, `max_tokens` holds, closing the stream
stops the work, a failure is `EngineFailed`.

Those of a model server, run by `tests/contracts/test_model_servers.py`: the pieces joined are the
body, closing a reply or cancelling what waits for it stops the work, a failure is `EngineFailed`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias, cast

from infra.contracts import Embedder, Passage, Usage
from infra.plugins import load

Unsupported: TypeAlias = Literal["mark", "remove", "keep"]


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
    unsupported: Unsupported = "mark"
    """What becomes of sentences that no source carries, where the engine writes its own."""


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
class Notes:
    """What an engine says of a whole answer beside its text."""

    engine: str | None = None
    """Which one wrote it, where that is not the engine that was asked."""
    prompt_version: str | None = None
    """The digest of the prompt template."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """What the model was not shown: see `Answer.left_out`."""
    unsupported: tuple[tuple[int, int], ...] = ()
    """Stretches of the answer that no source carries."""
    unknown: int = 0
    """Markers that nothing in the sources stands behind, taken out of the text."""
    has_read_markers: bool = False
    """Its markers became quotes or were taken out; what else is in brackets is none."""


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
    notes: Notes = Notes()
    """On the last delta."""


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


class Reply(Protocol):
    """What a model server answers: a status, headers, and bytes as they come."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Lower case."""
        ...

    def pieces(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives, in pieces of any length.

        Raises:
            EngineFailed: the connection broke, or nothing came for too long.
        """
        ...

    async def close(self) -> None:
        """Stop the work, if it has not ended; the connection is given up."""
        ...


class ModelServer(Protocol):
    """One replica that takes OpenAI's requests: another process, or a model in this one."""

    @property
    def address(self) -> str:
        """What logs and metrics call it."""
        ...

    async def send(
        self, path: str, body: bytes, *, headers: Mapping[str, str], timeout_seconds: float
    ) -> Reply:
        """Send a request and return when the answer begins; cancelling it stops the work.

        Args:
            path: such as `/v1/chat/completions`.
            body: JSON, as it goes out.
            headers: beside the content type and the server's key.
            timeout_seconds: until the answer begins.

        Raises:
            EngineFailed: it cannot be reached, or did not answer in time.
        """
        ...

    async def probe(self) -> bool:
        """Whether it is up, asked for its health."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class ServerContext:
    """What the gateway hands to a plug-in that serves models."""

    url: str
    """Of one replica, without `/v1`; empty where the model runs in this process."""
    api_key: str | None = None
    connect_seconds: float = 5.0
    """Until a connection stands."""
    silence_seconds: float = 60.0
    """Longest wait between two pieces of an answer."""
    options: dict[str, Any] = field(default_factory=dict)


def open_server(name: str, context: ServerContext) -> ModelServer:
    """Build one replica with plug-in `name`."""
    build = load("service.engines", name, function="build_server")
    return cast("ModelServer", build(context))

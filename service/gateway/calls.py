"""A call of a model: what is asked by whom, what it is charged to, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

from infra.contracts import Usage
from service.callers import Caller
from service.gateway.longest import Longest
from service.gateway.transcripts import Transcript

TARGET_HEADER = "x-ragstone-target"
"""In a request the tag of the target that is to answer, in an answer of the one that did."""

LEFT = 499
"""The status of a call whose caller left before the answer was complete."""

Source: TypeAlias = Literal["upstream", "cache", "shared", "replayed"]


@dataclass(slots=True)
class Call:
    """One request to a model, from any route or from an answer over a collection."""

    request_id: str
    caller: Caller
    path: str
    """Of OpenAI's API, such as `/v1/chat/completions`."""
    model: str
    """The route's name, as the caller wrote it."""
    body: dict[str, Any]
    """The request's JSON; `model` and what the gateway adds are replaced on the way out."""
    deadline: float
    """When it must have ended, on the monotonic clock, in seconds."""
    user: str | None = None
    """What keeps a caller at the same target: the `user` of the body, else the key."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """That are passed on, such as `traceparent`; lower case."""
    idempotency_key: str | None = None
    """The caller's name for the request, by which its answer is replayed; not passed on."""
    was_looked_up: bool = False
    """An answer to it might have been in memory, and was not."""
    target: str | None = None
    """The tag of the one target that may answer, where the caller asked for it."""
    is_hurried: bool = False
    """The caller gave it less time than the route does."""
    documents: tuple[str, ...] = ()
    """Public ids of the documents that the body may quote, as far as this service wrote it."""
    keeps_content: bool = True
    """False where the body was made of documents for an answer: its own record has what is kept."""
    longest: Longest | None = None
    """How long the answers may be: what was reserved for them, and what servers are told."""

    @property
    def is_stream(self) -> bool:
        return bool(self.body.get("stream"))


@dataclass(frozen=True, slots=True)
class Asked:
    """Who was asked for an answer."""

    upstream: str
    tag: str
    served: str


@dataclass(slots=True)
class Outcome:
    """How a call ended; what metrics, traces and the interaction log are made of."""

    call: Call
    status: int
    """As the caller saw it, or would have, had a stream not begun; 499 if the caller left."""
    usage: Usage = field(default_factory=Usage)
    cached_tokens: int = 0
    """Of the prompt, as the server reports its prefix cache."""
    upstream: str = ""
    served: str = ""
    """What the server calls the model: of an adapter the version that was asked. Empty where none
    was, or it only said that it has too much to do."""
    tag: str = ""
    """Of the target: `live`, `canary`, `shadow`, ..."""
    is_copy: bool = False
    """Whether it was sent aside, and is told to nobody."""
    finish_reason: str | None = None
    started: float = 0.0
    """On the monotonic clock, in seconds, as the three that follow."""
    first_byte: float | None = None
    ended: float = 0.0
    pieces: int = 0
    """Events of a stream that were passed on."""
    attempts: int = 1
    missed: list[Asked] = field(default_factory=list)
    """Those that failed; one that has too much to do, or not the adapter, did not."""
    source: Source = "upstream"
    """`shared` with an identical call under way; `replayed` by its idempotency key."""
    cost: float = 0.0
    error: str | None = None
    """The code of the error object, if it failed."""
    transcript: Transcript | None = None
    """Of the answer, only where settings ask for content."""

    @property
    def asked(self) -> Asked:
        """Who was asked last."""
        return Asked(self.upstream, self.tag, self.served)

    @property
    def text(self) -> str | None:
        """The answer as far as it was told, None where it is not kept."""
        return None if self.transcript is None else self.transcript.text

    def listen(self, events: bytes) -> None:
        """Note what these events of a stream say, where it is to be kept."""
        if self.transcript is not None:
            self.transcript.add_events(events)


class Recorder(Protocol):
    """Takes note of calls that ended; must not block."""

    def record(self, outcome: Outcome) -> None: ...

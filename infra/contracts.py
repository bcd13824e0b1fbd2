"""The types that cross folders: documents, chunks, passages, citations, answers, embedders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Metadata: TypeAlias = Mapping[str, Any]
"""Flat values a filter can compare: str, int, float, bool."""

Vectors: TypeAlias = NDArray[np.float32]
BlockKind: TypeAlias = Literal["heading", "paragraph", "list_item", "table", "code"]


@dataclass(frozen=True, slots=True)
class Block:
    """A stretch of a document's text that belongs together."""

    kind: BlockKind
    start: int
    """First character, counted in code points from the start of `Document.text`."""
    end: int
    """One past the last character."""
    level: int = 0
    """Depth of a heading, 1 for the top; 0 for everything else."""
    page: int | None = None
    """Page, slide or sheet, counted from 1."""


@dataclass(frozen=True, slots=True)
class Document:
    """What a loader extracts: one text, and the blocks that tile it."""

    text: str
    blocks: tuple[Block, ...]
    """In reading order, not overlapping; every character outside them is white space."""
    media_type: str
    title: str = ""
    metadata: Metadata = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    """What could not be read though the rest could, in words for the ingest summary."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a document that is embedded and found as one."""

    ordinal: int
    start_char: int
    end_char: int
    text: str
    """Equals `document.text[start_char:end_char]`."""
    tokens: int
    heading: str = ""
    """The headings above it, outermost first, joined with ' > '."""
    page: int | None = None


@dataclass(frozen=True, slots=True)
class Passage:
    """A chunk that was found, with where it stands and why it was found."""

    chunk_id: int
    document_id: str
    """The public id, `file-...`."""
    document_version: int
    collection: str
    source: str
    title: str
    start_char: int
    end_char: int
    text: str
    score: float
    """The fused score that orders the passages; larger is better."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """By stage: `dense` is a cosine, `lexical` a BM25 score; a stage that missed it is absent."""
    heading: str = ""
    page: int | None = None
    metadata: Metadata = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Citation:
    """A claim's evidence: a span of a stored document, checked against the stored text."""

    document_id: str
    document_version: int
    source: str
    title: str
    start_char: int
    end_char: int
    text: str
    """Equals the stored text at `[start_char, end_char)`."""
    answer_start: int
    """The stretch of the answer that this evidence supports."""
    answer_end: int
    support: float
    """How well the span carries that stretch, 0 to 1."""
    page: int | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the engine counts them; the prompt includes the retrieved passages."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Disagreement:
    """What a sentence of an answer says and the passages do not."""

    kind: Literal["number", "date", "name"]
    said: str
    instead: str | None = None
    """What stands in its place there, where that is clear."""


@dataclass(frozen=True, slots=True)
class Ungrounded:
    """A sentence of an answer that no passage carries, or none surely."""

    start: int
    end: int
    risk: float
    """The likelihood that it is not carried, 0 to 1."""
    disagreements: tuple[Disagreement, ...] = ()


Verdict: TypeAlias = Literal["grounded", "unsupported", "uncertain", "unscored"]


@dataclass(frozen=True, slots=True)
class Groundedness:
    """How well its passages carry an answer, as `monitoring/groundedness.py` finds."""

    verdict: Verdict
    score: float | None = None
    """1 less the risk of the weakest sentence; None where nothing was scored."""
    unsupported: tuple[Ungrounded, ...] = ()
    """Sentences that no passage carries."""
    doubtful: tuple[Ungrounded, ...] = ()
    """Those of which it cannot be told."""
    uncited: tuple[tuple[int, int], ...] = ()
    """Sentences without a citation."""
    miscited: tuple[tuple[int, int], ...] = ()
    """Sentences that passages carry, but not what they cite."""
    coverage: float = 1.0
    """The share of passages and answer that was read."""
    detector: str = ""
    reason: str | None = None
    """Why it was not scored, or not in whole."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one question, or the reason there is none."""

    id: str
    question: str
    collection: str
    text: str
    answerable: bool
    reason: str | None
    """Why not, when `answerable` is false."""
    citations: tuple[Citation, ...]
    passages: tuple[Passage, ...]
    engine: str
    usage: Usage
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    """Milliseconds by step: embed, search, generate, verify, total."""
    finish_reason: Literal["stop", "length"] = "stop"
    unverified: int = 0
    """Citations the engine gave that did not equal the stored text, and were dropped."""
    prompt_version: str | None = None
    """The digest of the prompt template, where a model wrote the answer."""
    unsupported: tuple[tuple[int, int], ...] = ()
    """Stretches of the text that no passage carries."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """What the model was not shown: `passages`, `turns` of the conversation and `examples` for want
    of room, `screened` passages and earlier answers because they seem to hold instructions."""
    groundedness: Groundedness | None = None
    """None where it is not scored while the caller waits."""


@dataclass(slots=True)  # not frozen: with so many fields that takes four times as long to make
class Interaction:
    """One question and what became of it, or one prediction: what monitoring looks at."""

    id: str
    """Of its own: a request may cause several, and clients choose the ids of requests. It ends in
    `-missed` where a target failed and another one was asked then."""
    kind: Literal["answer", "completion", "prediction"]
    at: datetime
    model: str
    """As the caller named it."""
    outcome: Literal["answered", "abstained", "failed", "cancelled"]
    status: int
    """Of HTTP, as the caller saw it; 499 if the caller left. Of a target
    that failed where another one was asked then 502, whatever the caller saw."""
    request_id: str | None = None
    """`x-request-id`, as the caller was told it."""
    error: str | None = None
    """The code of the error object."""
    tenant: str | None = None
    key_id: str | None = None
    collection: str | None = None
    upstream: str = ""
    """The engine, or the model server that answered."""
    tag: str = ""
    """Of the route's target: `live`, `canary`, `shadow`, ..."""
    source: str = "upstream"
    """`cache`, `shared` or `replayed` where no model was asked."""
    served: str | None = None
    """Of a completion what the server calls the model: of an adapter the version that was asked.
    None where none was, or all that is known is that it had too much to do."""
    terms: Literal["pinned", "hurried"] | None = None
    """`pinned` to a target that the caller chose; `hurried` by less time than the route gives."""
    draw: float | None = None
    """Where in [0, 1) a route's target was drawn: the same for the same user, in few digits, so
    that it tells users apart and names none. None where chance drew."""
    prompt_version: str | None = None
    usage: Usage = field(default_factory=Usage)
    cached_tokens: int = 0
    cost_nano: int = 0
    """In billionths of the currency."""
    first_byte_seconds: float | None = None
    seconds: float = 0.0
    support: float | None = None
    """Of the citation that carries its sentence least, 0 to 1."""
    groundedness: float | None = None
    """How well passages carry the weakest sentence, 0 to 1."""
    verdict: Verdict | None = None
    """What was found of groundedness; None where nobody looked."""
    review: Literal["unsupported", "sampled"] | None = None
    """Why a person should look at it."""
    documents: tuple[str, ...] = ()
    """Public ids of the documents that `content` may quote."""
    content: Mapping[str, Any] | None = None
    """Question, answer and citations, only where the settings ask for them. Of a prediction
    `features` (by column), `prediction` and `probabilities` (by class): for drift."""


@dataclass(frozen=True, slots=True)
class Access:
    """Whose documents may be seen: one tenant's, and of these what their lists allow.

    Where an `Access | None` is asked for, None is the operator's, who sees everything.
    """

    tenant: str
    principals: frozenset[str] = frozenset()
    """Who asks, as the lists of documents name them: `key:ada`, `group:board`."""


PUBLIC = "public"
"""In a document's list: everyone may read it, of whatever tenant."""


@dataclass(frozen=True, slots=True)
class Readers:
    """Who may read a document, besides the operator."""

    tenant: str | None = None
    """Whose it is; None is the operator's own."""
    allow: tuple[str, ...] = ()
    """Its list: of the tenant, these principals only; empty is everyone of the tenant."""


class Embedder(Protocol):
    """Turns texts into unit vectors; see `retrieval/embedders/__init__.py` for the contract."""

    @property
    def identity(self) -> str:
        """Model and weights, as far as vectors depend on them; part of a build's recipe."""
        ...

    @property
    def dimension(self) -> int: ...

    @property
    def max_tokens(self) -> int:
        """Tokens of one text that are read; what lies beyond does not reach the vector."""
        ...

    def embed(self, texts: Sequence[str], *, kind: Literal["query", "document"]) -> Vectors:
        """Return `(len(texts), dimension)` float32 rows of unit length."""
        ...

    def token_spans(self, text: str) -> NDArray[np.int32]:
        """Return `(tokens, 2)` character spans of the text's tokens, without special tokens."""
        ...

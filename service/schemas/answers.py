"""Native questions: answers with verified citations, and searches."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from infra.contracts import Answer, Citation, Passage, Verdict
from retrieval.search import SearchRequest, SearchResult
from service.engines import Turn, Unsupported
from service.questions import Question
from service.schemas.shared import Input, RawFilter, parse_filter


class HistoryMessage(Input):
    role: Literal["system", "user", "assistant"]
    content: str


class Searching(Input):
    """How to search; what is absent is as the settings say."""

    mode: Literal["hybrid", "dense", "lexical"] = "hybrid"
    min_score: float | None = Field(None, ge=0, le=1, description="Leave out what scores less.")
    fusion: Literal["convex", "rrf"] | None = Field(None, description="By scores, or by ranks.")
    dense_weight: float | None = Field(None, ge=0, le=1, description="Of the convex fusion.")
    smoothing: float | None = Field(
        None, ge=0, le=1, description="Part of a score that comes from candidates alike."
    )
    rerank: bool | None = Field(None, description="Use the reranker that is set up, or not.")
    diversity: float | None = Field(
        None, ge=0, le=1, description="0 ranks by score alone, 1 by difference alone."
    )
    neighbours: int | None = Field(
        None, ge=0, le=10, description="Chunks before and after each passage, returned with it."
    )
    multi_query: bool | None = Field(None, description="Search for variants of the question too.")

    def template(self) -> SearchRequest:
        return SearchRequest(
            text="",
            mode=self.mode,
            min_score=self.min_score,
            fusion=self.fusion,
            dense_weight=self.dense_weight,
            smoothing=self.smoothing,
            rerank=self.rerank,
            diversity=self.diversity,
            neighbours=self.neighbours,
            multi_query=self.multi_query,
        )


class AnswerBody(Searching):
    question: str = Field(min_length=1, examples=["How many days of leave do I have?"])
    collection: str = Field(min_length=1, description="Name or id.", examples=["handbook"])
    filter: RawFilter | None = None
    limit: int | None = Field(None, ge=1, le=100, description="Passages the engine may use.")
    history: list[HistoryMessage] = Field(default=[], max_length=200, description="Oldest first.")
    max_tokens: int | None = Field(None, ge=1, le=100_000, description="Of the answer.")
    min_sequence: int = Field(0, ge=0, description="Wait for the write that answered with it.")
    generator: str | None = Field(
        None, min_length=1, max_length=255, description="The model that answers; else the setting."
    )
    unsupported: Unsupported = Field(
        "mark", description="What becomes of a model's sentences that no source carries."
    )
    conversation: str | None = Field(
        None,
        min_length=1,
        max_length=64,
        description="The id of a conversation: what was said in it comes before `history`, and "
        "question and answer are added to it.",
    )
    stream: bool = Field(False, description="Server-sent events; so does Accept.")

    def as_question(self) -> Question:
        return Question(
            text=self.question,
            collection=self.collection,
            filter=parse_filter(self.filter),
            limit=self.limit,
            history=tuple(Turn(turn.role, turn.content) for turn in self.history),
            max_tokens=self.max_tokens,
            min_sequence=self.min_sequence,
            template=self.template(),
            generator=self.generator,
            unsupported=self.unsupported,
            conversation=self.conversation,
        )


class SearchBody(Searching):
    query: str = Field(min_length=1)
    collection: str = Field(min_length=1, description="Name or id.")
    filter: RawFilter | None = None
    limit: int = Field(8, ge=1, le=100)
    min_sequence: int = Field(0, ge=0, description="Wait for the write that answered with it.")

    def as_request(self) -> SearchRequest:
        return replace(
            self.template(),
            text=self.query,
            limit=self.limit,
            filter=parse_filter(self.filter),
            min_sequence=self.min_sequence,
        )


class Output(BaseModel):
    """Read off a dataclass of `infra/contracts.py`, field by field."""

    model_config = ConfigDict(from_attributes=True)


class PassageOut(Output):
    document_id: str
    document_version: int
    source: str
    title: str
    start_char: int
    end_char: int
    text: str
    score: float
    scores: dict[str, float]
    heading: str
    page: int | None
    metadata: dict[str, Any]

    @classmethod
    def of(cls, passage: Passage) -> PassageOut:
        return cls.model_validate(passage)


class CitationOut(Output):
    document_id: str
    document_version: int
    source: str
    title: str
    start_char: int
    end_char: int
    text: str = Field(description="Equals the stored text at [start_char, end_char).")
    answer_start: int = Field(description="The stretch of the answer it supports, in code points.")
    answer_end: int
    support: float
    page: int | None

    @classmethod
    def of(cls, citation: Citation) -> CitationOut:
        return cls.model_validate(citation)


class StretchOut(BaseModel):
    """Of the answer's text, in code points."""

    start: int
    end: int


def stretches(spans: Iterable[tuple[int, int]]) -> list[dict[str, int]]:
    return [{"start": start, "end": end} for start, end in spans]


class DisagreementOut(Output):
    kind: Literal["number", "date", "name"]
    said: str
    instead: str | None = Field(description="What the passages have in its place, if clear.")


class UngroundedOut(Output):
    start: int
    end: int
    risk: float
    disagreements: list[DisagreementOut]


class GroundednessOut(Output):
    """How well the passages carry the answer, sentence by sentence; no model is asked."""

    verdict: Verdict
    score: float | None = Field(description="1 less the risk of the weakest sentence.")
    unsupported: list[UngroundedOut] = Field(description="Sentences that no passage carries.")
    doubtful: list[UngroundedOut] = Field(description="Sentences of which it cannot be told.")
    uncited: list[StretchOut]
    miscited: list[StretchOut] = Field(description="Carried, but not by what they cite.")
    coverage: float = Field(description="The share of passages and answer that was read.")
    detector: str
    reason: str | None

    @field_validator("uncited", "miscited", mode="before")
    @classmethod
    def _stretches(cls, value: Any) -> Any:
        return stretches(value)


class UsageOut(Output):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class AnswerOut(Output):
    id: str
    object: Literal["answer"] = "answer"
    question: str
    collection: str
    text: str
    answerable: bool
    reason: str | None = Field(description="Why not, when it is not answerable.")
    citations: list[CitationOut]
    unverified: int = Field(description="Citations dropped: not what is stored at their span.")
    passages: list[PassageOut]
    engine: str
    finish_reason: Literal["stop", "length"]
    prompt_version: str | None = Field(description="Digest of a model's prompt template.")
    unsupported: list[StretchOut] = Field(description="What no passage carries.")
    groundedness: GroundednessOut | None
    left_out: dict[str, int] = Field(
        description="What the model was not shown: passages, turns, examples for want of room; "
        "screened passages and earlier answers."
    )
    usage: UsageOut
    timings_ms: dict[str, float]

    @field_validator("unsupported", mode="before")
    @classmethod
    def _stretches(cls, value: Any) -> Any:
        return stretches(value)

    @classmethod
    def of(cls, answer: Answer) -> AnswerOut:
        return cls.model_validate(answer)


class SearchOut(BaseModel):
    object: Literal["search"] = "search"
    collection: str
    passages: list[PassageOut]
    timings_ms: dict[str, float]

    @classmethod
    def of(cls, collection: str, result: SearchResult) -> SearchOut:
        return cls(
            collection=collection,
            passages=[PassageOut.of(passage) for passage in result.passages],
            timings_ms=dict(result.timings_ms),
        )

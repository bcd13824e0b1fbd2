"""OpenAI's vector stores, which are our collections, and searching them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StringConstraints, model_validator

from infra.contracts import Passage
from infra.errors import InvalidConfiguration, InvalidRequest
from retrieval.collections import Collection, Statistics
from retrieval.recipe import Recipe
from service.schemas.shared import Input, RawFilter, StoreMetadata, Tenant, plain, unix
from service.wiring import Components

Name = Annotated[str, StringConstraints(min_length=1, max_length=255)]
DESCRIPTION = "ragstone:description"
"""Where a collection's attributes keep the description that OpenAI sends beside the metadata."""


class Auto(Input):
    type: Literal["auto"]


class StaticSizes(Input):
    max_chunk_size_tokens: int = Field(ge=16, le=8192)
    chunk_overlap_tokens: int = Field(ge=0, le=4096)


class Static(Input):
    type: Literal["static"]
    static: StaticSizes


ChunkingStrategy = Annotated[Auto | Static, Field(discriminator="type")]


class StaticOut(BaseModel):
    type: Literal["static"] = "static"
    static: StaticSizes

    @classmethod
    def of(cls, recipe: Recipe) -> StaticOut:
        return cls(
            static=StaticSizes(
                max_chunk_size_tokens=recipe.chunk_tokens,
                chunk_overlap_tokens=recipe.chunk_overlap_tokens,
            )
        )


class ExpiresAfter(BaseModel):
    anchor: Literal["last_active_at", "created_at"]
    days: int | None = None
    seconds: int | None = None


class CreateStore(Input):
    name: Name | None = Field(None, description="Unique, without a slash; made up if absent.")
    description: str | None = Field(None, max_length=1000)
    metadata: StoreMetadata | None = None
    file_ids: list[str] = Field(default=[], max_length=500)
    chunking_strategy: ChunkingStrategy | None = Field(None, description="Of the whole store.")
    tenant: Tenant | None = Field(None, description="Holds this tenant's documents only.")
    expires_after: Any = Field(None, description="Not supported; stores stay until deleted.")

    def attributes(self) -> dict[str, Any]:
        described = {} if self.description is None else {DESCRIPTION: self.description}
        return {**(self.metadata or {}), **described}


class UpdateStore(Input):
    name: Name | None = None
    metadata: StoreMetadata | None = None
    expires_after: Any = Field(None, description="Not supported; stores stay until deleted.")


class FileCounts(BaseModel):
    in_progress: int
    completed: int
    failed: int
    cancelled: int
    total: int


class StoreOut(BaseModel):
    id: str
    object: Literal["vector_store"] = "vector_store"
    created_at: int
    name: str
    description: str | None
    usage_bytes: int
    file_counts: FileCounts
    status: Literal["in_progress", "completed"]
    expires_after: ExpiresAfter | None = None
    expires_at: int | None = None
    last_active_at: int
    metadata: dict[str, Any]

    @classmethod
    def of(
        cls, collection: Collection, statistics: Statistics, *, last_active_at: datetime
    ) -> StoreOut:
        metadata = dict(collection.attributes)
        return cls(
            id=collection.public_id,
            created_at=unix(collection.created_at),
            name=collection.name,
            description=metadata.pop(DESCRIPTION, None),
            usage_bytes=statistics.bytes,
            file_counts=FileCounts(
                in_progress=statistics.in_progress,
                completed=statistics.completed,
                failed=statistics.failed,
                cancelled=statistics.cancelled,
                total=statistics.documents,
            ),
            status="in_progress" if statistics.in_progress else "completed",
            last_active_at=unix(last_active_at),
            metadata=metadata,
        )


class StoreList(BaseModel):
    object: Literal["list"] = "list"
    data: list[StoreOut]
    first_id: str | None
    last_id: str | None
    has_more: bool


class HybridSearch(Input):
    embedding_weight: float = Field(ge=0, allow_inf_nan=False)
    text_weight: float = Field(ge=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _some_weight(self) -> HybridSearch:
        if not self.embedding_weight + self.text_weight > 0:
            raise ValueError("embedding_weight and text_weight are both 0; raise one")
        return self

    @property
    def dense_weight(self) -> float:
        return self.embedding_weight / (self.embedding_weight + self.text_weight)


class RankingOptions(Input):
    ranker: Literal["none", "auto", "default-2024-11-15"] = "auto"
    score_threshold: float | None = Field(None, ge=0, le=1)
    hybrid_search: HybridSearch | None = None

    @property
    def dense_weight(self) -> float | None:
        return self.hybrid_search.dense_weight if self.hybrid_search else None


class SearchStore(Input):
    query: (
        Annotated[str, StringConstraints(min_length=1)]
        | Annotated[
            list[Annotated[str, StringConstraints(min_length=1)]],
            Field(min_length=1, max_length=10),
        ]
    )
    filters: RawFilter | None = None
    max_num_results: int = Field(10, ge=1, le=50)
    ranking_options: RankingOptions | None = None
    rewrite_query: bool = Field(False, description="Accepted; the query is searched as it is.")
    min_sequence: int = Field(0, ge=0, description="Wait for the write that answered with it.")

    def queries(self) -> list[str]:
        return [self.query] if isinstance(self.query, str) else self.query


class ContentPiece(BaseModel):
    type: Literal["text"] = "text"
    text: str


class FoundOut(BaseModel):
    """One passage; the span is ours, everything else OpenAI's."""

    file_id: str
    filename: str
    score: float
    attributes: dict[str, Any]
    content: list[ContentPiece]
    version: int
    start_char: int
    end_char: int
    page: int | None

    @classmethod
    def of(cls, passage: Passage) -> FoundOut:
        attributes = plain(passage.metadata)
        return cls(
            file_id=passage.document_id,
            filename=str(attributes.pop("filename", passage.title)),
            score=passage.score,
            attributes=attributes,
            content=[ContentPiece(text=passage.text)],
            version=passage.document_version,
            start_char=passage.start_char,
            end_char=passage.end_char,
            page=passage.page,
        )


class FoundPage(BaseModel):
    object: Literal["vector_store.search_results.page"] = "vector_store.search_results.page"
    search_query: list[str]
    data: list[FoundOut]
    has_more: Literal[False] = False
    next_page: None = None


def refuse_expiry(expires_after: object) -> None:
    """Say so instead of keeping for ever what was to expire."""
    if expires_after is not None:
        raise InvalidRequest(
            "expires_after is not supported: a store stays until it is deleted",
            parameter="expires_after",
        )


def recipe_for(components: Components, strategy: Auto | Static | None) -> Recipe:
    """Return what a new store is built with; the embedder says which sizes it can read."""
    if not isinstance(strategy, Static):
        return components.recipe()
    try:
        return components.recipe(
            chunk_tokens=strategy.static.max_chunk_size_tokens,
            overlap_tokens=strategy.static.chunk_overlap_tokens,
        )
    except InvalidConfiguration as error:
        raise InvalidRequest(error.message, parameter="chunking_strategy") from error


def refuse_other_strategy(collection: Collection, strategy: Auto | Static | None) -> None:
    """A store is chunked in one way, chosen when it is created."""
    if isinstance(strategy, Static) and StaticOut.of(collection.recipe).static != strategy.static:
        recipe = collection.recipe
        raise InvalidRequest(
            f"This store has chunks of {recipe.chunk_tokens} tokens overlapping by "
            f"{recipe.chunk_overlap_tokens}; create another store for other sizes",
            parameter="chunking_strategy",
        )

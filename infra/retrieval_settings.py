"""Settings of search: embedder, index, chunks, fusion, rerankers."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from infra.section import Section


class Reranking(Section):
    reranker: str = "cross_encoder"
    """A file of `retrieval/rerankers/`, or a dotted path."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Passed to the reranker, such as `model`, also `model/NAME@ALIAS` of the artifact store."""


class Retrieval(Section):
    embedder: str = "onnx"
    """A file of `retrieval/embedders/`, or a dotted path."""
    embedder_options: dict[str, Any] = Field(default_factory=dict)
    """Passed to the embedder, such as `model` (hub id, path, or `model/NAME@v1` of the store)."""
    index: str = "local"
    """A file of `retrieval/indexes/`, or a dotted path."""
    index_options: dict[str, Any] = Field(default_factory=dict)
    """Passed to the index, such as `type` and `recall`, or the `uri` of a Milvus cluster."""
    splitter: str | None = Field(default=None, pattern=r"\.")
    """Dotted path of a splitter, such as LangChain's; by default Ragstone splits."""
    splitter_options: dict[str, Any] = Field(default_factory=dict)
    """Passed to the splitter's class, such as `chunk_size`."""
    chunk_tokens: int = Field(default=200, ge=16, le=8192)
    """Length of a chunk, in the embedder's tokens; at most what it reads."""
    chunk_overlap_tokens: int = Field(default=32, ge=0)
    """Tokens a chunk repeats of the one before; at most half of `chunk_tokens`."""
    passages: int = Field(default=8, ge=1, le=100)
    """Passages handed to the engine."""
    candidates: int = Field(default=100, ge=1, le=1000)
    """Asked of each of dense and lexical search before fusion."""
    fusion: Literal["convex", "rrf"] = "convex"
    """How dense and lexical search become one ranking: by weighted scores, or by ranks alone."""
    dense_weight: float = Field(default=0.5, ge=0, le=1)
    """Of dense search in the convex fusion; lexical search has the rest."""
    smoothing: float = Field(default=0.6, ge=0, le=1)
    """The part of a score of the convex fusion that comes from the candidates most alike."""
    reranker: str = "none"
    """A file of `retrieval/rerankers/`, or a dotted path."""
    reranker_options: dict[str, Any] = Field(default_factory=dict)
    """Passed to the reranker, such as `model` (hub id, path, or `model/NAME@v1` of the store)."""
    rerankers: dict[str, Reranking] = Field(default_factory=dict)
    """By the name of a collection: its own, in place of `reranker`."""
    rerank_candidates: int = Field(default=50, ge=1, le=1000)
    """Passages that the reranker reads."""
    min_score: float | None = Field(default=None, ge=0, le=1)
    """Passages that score less are left out."""
    diversity: float = Field(default=0.0, ge=0, le=1)
    """What a passage must add to those before it: 0 looks at scores alone, 1 at differences."""
    neighbours: int = Field(default=0, ge=0, le=10)
    """Chunks before and after each passage that are returned with it."""
    variants: str | None = Field(default=None, pattern=r"\.")
    """Dotted path of a function from a question to other ways to ask it."""
    multi_query: bool = False
    """Search for those variants too, wherever the request does not say."""

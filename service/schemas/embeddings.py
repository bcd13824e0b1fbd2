"""OpenAI's embeddings and Cohere's rerank, answered by the models that search uses."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StringConstraints, field_validator

from service.schemas.shared import Input

LOCAL_EMBEDDER = "local/embedder"
"""The model that the settings name for retrieval."""
LOCAL_RERANKER = "local/reranker"
MAX_INPUTS = 2048

Text = Annotated[str, StringConstraints(min_length=1)]


class EmbeddingsBody(Input):
    model: str = Field(min_length=1, examples=[LOCAL_EMBEDDER])
    input: Text | Annotated[list[Text], Field(min_length=1, max_length=MAX_INPUTS)]
    encoding_format: Literal["float", "base64"] | None = "float"
    dimensions: int | None = Field(None, ge=1)
    user: str | None = None
    kind: Literal["query", "document"] = Field(
        "document", description="Ours: some models embed questions in another way."
    )

    @field_validator("input", mode="before")
    @classmethod
    def _texts(cls, given: Any) -> Any:
        """Some clients send tokens of OpenAI's own models, which other models know by other ids."""
        first = given[0] if isinstance(given, list) and given else None
        if isinstance(first, int | list):
            raise ValueError("token ids are of another model; send texts")
        return given

    @property
    def texts(self) -> list[str]:
        return [self.input] if isinstance(self.input, str) else list(self.input)


class EmbeddingOut(BaseModel):
    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class InputUsage(BaseModel):
    prompt_tokens: int
    total_tokens: int


class Embeddings(BaseModel):
    object: Literal["list"] = "list"
    data: list[EmbeddingOut]
    model: str
    usage: InputUsage


class RerankDocument(Input):
    text: Text


class RerankBody(Input):
    model: str = Field(min_length=1, examples=[LOCAL_RERANKER])
    query: Text
    documents: Annotated[list[Text | RerankDocument], Field(min_length=1, max_length=1000)]
    top_n: int | None = Field(None, ge=1)
    return_documents: bool | None = False

    @property
    def texts(self) -> list[str]:
        return [each if isinstance(each, str) else each.text for each in self.documents]


class Reranked(BaseModel):
    index: int
    relevance_score: float
    document: dict[str, str] | None = None


class Ranking(BaseModel):
    id: str
    model: str
    results: list[Reranked]
    usage: InputUsage

"""OpenAI's embeddings, and rerank in Cohere's and Jina's shape, by the models of this process."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import numpy as np
from fastapi import APIRouter, Response

from infra.contracts import Embedder, Vectors
from infra.errors import InvalidRequest, NotFound
from infra.security import new_id
from service.bodies import StrictRoute
from service.callers import Caller
from service.dependencies import Asked, Asking, Parts
from service.schemas.embeddings import (
    LOCAL_EMBEDDER,
    LOCAL_RERANKER,
    EmbeddingOut,
    Embeddings,
    EmbeddingsBody,
    InputUsage,
    Ranking,
    RerankBody,
    Reranked,
)
from service.schemas.shared import OPENAI_ERRORS
from service.wiring import Components

router = APIRouter(prefix="/v1", tags=["models"], route_class=StrictRoute, responses=OPENAI_ERRORS)


@router.post("/embeddings")
async def embed(
    body: EmbeddingsBody, caller: Asking, asked: Asked, components: Parts, response: Response
) -> Embeddings:
    """Embed texts: by the model that search uses, `local/embedder`, or by a route of the gateway.

    A text that is longer than the model reads is refused, not cut.
    """
    caller.require_model(body.model)
    _require_model(body.model, LOCAL_EMBEDDER, components, caller)
    made = await asked.work(
        lambda: _embed(body, components.embedder),
        model=LOCAL_EMBEDDER,
        texts=body.texts,
        used=lambda done: done.usage.total_tokens,
    )
    response.headers.update(asked.headers)
    return made


@router.post("/rerank")
async def rerank(
    body: RerankBody, caller: Asking, asked: Asked, components: Parts, response: Response
) -> Ranking:
    """Score documents against a query, best first: by `local/reranker`, or by a route."""
    caller.require_model(body.model)
    _require_model(body.model, LOCAL_RERANKER, components, caller)
    ranking = await asked.work(
        lambda: _rerank(body, components),
        model=LOCAL_RERANKER,
        texts=[body.query, *body.texts],
        used=lambda done: done.usage.total_tokens,
    )
    response.headers.update(asked.headers)
    return ranking


def _embed(body: EmbeddingsBody, embedder: Embedder) -> Embeddings:
    texts = body.texts
    if body.dimensions not in (None, embedder.dimension):
        raise InvalidRequest(
            f"The model gives {embedder.dimension} dimensions, not {body.dimensions}",
            parameter="dimensions",
        )
    counts = [len(embedder.token_spans(text)) for text in texts]
    for at, count in enumerate(counts):
        if count > embedder.max_tokens:
            raise InvalidRequest(
                f"Text {at} has {count:,} tokens, the model reads {embedder.max_tokens:,}; cut it",
                parameter="input",
            )
    vectors = embedder.embed(texts, kind=body.kind)
    encoded = _encode(vectors, as_base64=body.encoding_format == "base64")
    return Embeddings(
        data=[EmbeddingOut(index=at, embedding=each) for at, each in enumerate(encoded)],
        model=body.model,
        usage=InputUsage(prompt_tokens=sum(counts), total_tokens=sum(counts)),
    )


def _encode(vectors: Vectors, *, as_base64: bool) -> Sequence[list[float] | str]:
    if not as_base64:
        return [row.tolist() for row in vectors]
    return [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in vectors]


def _rerank(body: RerankBody, components: Components) -> Ranking:
    texts = body.texts
    scores = components.reranker.score(body.query, texts)
    if scores is None:
        raise NotFound("model", body.model)
    order = np.argsort(-scores, kind="stable")[: body.top_n]
    tokens = sum(len(components.embedder.token_spans(text)) for text in [body.query, *texts])
    return Ranking(
        id=new_id("rerank-"),
        model=body.model,
        results=[
            Reranked(
                index=int(at),
                relevance_score=float(scores[at]),
                document={"text": texts[at]} if body.return_documents else None,
            )
            for at in order
        ],
        usage=InputUsage(prompt_tokens=tokens, total_tokens=tokens),
    )


def _require_model(name: str, known: str, components: Components, caller: Caller) -> None:
    """Tell of the models there are; routes of the gateway have been looked for before."""
    if name != known:
        raise NotFound("model", name, among=[known, *components.routes.current.names(caller)])

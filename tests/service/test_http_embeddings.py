"""Embeddings and rerank in the shapes of OpenAI and Cohere, by the models of search."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from infra.errors import InvalidConfiguration

EMBED: dict[str, Any] = {"model": "local/embedder", "input": ["rain", "sunshine and rain"]}
RERANK = {"model": "local/reranker", "query": "rain", "documents": ["sun", {"text": "rain falls"}]}


def test_texts_are_embedded_as_search_embeds_them(client: TestClient) -> None:
    answer = client.post("/v1/embeddings", json=EMBED).json()
    components = client.app.state.components  # type: ignore[attr-defined]
    expected = components.embedder.embed(EMBED["input"], kind="document")
    assert [each["index"] for each in answer["data"]] == [0, 1]
    np.testing.assert_allclose([each["embedding"] for each in answer["data"]], expected, rtol=1e-6)
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] > 0


def test_base64_holds_the_same_numbers(client: TestClient) -> None:
    plain = client.post("/v1/embeddings", json=EMBED).json()["data"]
    packed = client.post("/v1/embeddings", json={**EMBED, "encoding_format": "base64"}).json()
    for one, two in zip(plain, packed["data"], strict=True):
        numbers = np.frombuffer(base64.b64decode(two["embedding"]), "<f4")
        np.testing.assert_allclose(numbers, one["embedding"], rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "status", "parameter"),
    [
        ({"input": []}, 400, "input"),
        ({"input": ""}, 400, "input"),
        ({"input": [1, 2]}, 400, "input"),
        ({"input": "word " * 5000}, 400, "input"),
        ({"dimensions": 7}, 400, "dimensions"),
        ({"encoding_format": "hex"}, 400, "encoding_format"),
        ({"model": "local/embeder"}, 404, None),
    ],
)
def test_what_cannot_be_embedded_is_refused(
    client: TestClient, change: dict[str, Any], status: int, parameter: str | None
) -> None:
    answer = client.post("/v1/embeddings", json={**EMBED, **change})
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert (error["param"] or "").split(".")[0] == (parameter or "")


@pytest.mark.parametrize("ids", [[1, 2], [[1, 2], [3]]])
def test_tokens_of_another_model_are_refused_in_words(client: TestClient, ids: Any) -> None:
    error = client.post("/v1/embeddings", json={**EMBED, "input": ids}).json()["error"]
    assert "send texts" in error["message"]


def test_documents_are_ranked_by_the_reranker(fast_settings: Any, open_client: Any) -> None:
    settings = fast_settings(
        retrieval={
            "embedder": "hashing",
            "chunk_tokens": 60,
            "chunk_overlap_tokens": 10,
            "reranker": "reranking.by_shared_words",
        }
    )
    answer = open_client(settings).post("/v1/rerank", json={**RERANK, "return_documents": True})
    first, second = answer.json()["results"]
    assert (first["index"], first["document"]) == (1, {"text": "rain falls"})
    assert first["relevance_score"] > second["relevance_score"]
    top = open_client(settings).post("/v1/rerank", json={**RERANK, "top_n": 1}).json()
    assert [each["index"] for each in top["results"]] == [1]


@pytest.mark.parametrize(
    ("chosen", "told"),
    [
        ({"reranker": "reranking.with_several_outputs"}, r"^retrieval\.reranker: it has 3 output"),
        (
            {"rerankers": {"handbook": {"reranker": "reranking.with_half_a_file"}}},
            r"^retrieval\.rerankers\.handbook: incomplete metadata$",
        ),
        (
            {"rerankers": {"handbook": {"options": {"model": "model/judge@production"}}}},
            r"^retrieval\.rerankers\.handbook: .*model/judge",
        ),
    ],
)
def test_no_service_starts_with_a_reranker_that_cannot_rank(
    fast_settings: Any, open_client: Any, chosen: dict[str, Any], told: str
) -> None:
    with pytest.raises(InvalidConfiguration, match=told):
        open_client(fast_settings(retrieval={"embedder": "hashing", **chosen}))


def test_without_a_reranker_there_is_no_such_model(client: TestClient) -> None:
    answer = client.post("/v1/rerank", json=RERANK)
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"

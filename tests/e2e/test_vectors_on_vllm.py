"""Vectors and ranks of a real vLLM behind this service: OpenAI's SDK, and rerank by plain HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import openai
import pytest

from running_server import RunningServer, start
from vllm_server import MODEL, Unavailable, VllmServer, vectors_server

TEXTS = ["rain falls on the roof", "the sun", "a stone in the Tower of London"]
WIDTH = 64
"""Of the tiny model."""
LONGEST = 512
"""Tokens that it reads."""


@pytest.fixture(scope="module")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    try:
        with vectors_server(tmp_path_factory.mktemp("vllm-vectors")) as server:
            yield server
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def service(vllm: VllmServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """This service with two routes to vLLM."""
    target = {"targets": [{"upstream": "cpu", "model": MODEL}], "retries": 0}
    running = start(
        tmp_path_factory.mktemp("vectors"),
        RAGSTONE_GATEWAY__UPSTREAMS=json.dumps({"cpu": {"urls": [vllm.url], "api_key": vllm.key}}),
        RAGSTONE_GATEWAY__ROUTES=json.dumps(
            {"vectors": {**target, "kind": "embeddings"}, "ranks": {**target, "kind": "rerank"}}
        ),
    )
    running.wait_until_ready()
    yield running
    running.stop()


@pytest.fixture
def client(service: RunningServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def vectors(client: openai.OpenAI, given: Any, **more: Any) -> Any:
    made = client.embeddings.create(model="vectors", input=given, **more)
    assert [each.index for each in made.data] == list(range(len(made.data)))
    return np.array([each.embedding for each in made.data])


def test_texts_are_embedded_as_the_server_embeds_them(
    client: openai.OpenAI, vllm: VllmServer
) -> None:
    # The SDK asks for base64, and tells numbers.
    made = client.embeddings.create(model="vectors", input=TEXTS)
    assert (made.object, made.model, len(made.data)) == ("list", "vectors", len(TEXTS))
    assert made.usage.total_tokens == made.usage.prompt_tokens > len(TEXTS)
    told = np.array([each.embedding for each in made.data])
    assert told.shape == (len(TEXTS), WIDTH)
    np.testing.assert_allclose(np.linalg.norm(told, axis=1), 1.0, rtol=1e-3)
    direct = vllm.post("/v1/embeddings", {"model": MODEL, "input": TEXTS})["data"]
    np.testing.assert_allclose(told, [each["embedding"] for each in direct], atol=1e-3)


def test_both_encodings_hold_the_same_numbers(client: openai.OpenAI) -> None:
    plain = vectors(client, TEXTS[:2], encoding_format="float")
    packed = client.embeddings.create(
        model="vectors", input=TEXTS[:2], encoding_format="base64"
    ).data
    np.testing.assert_allclose(vectors(client, TEXTS[:2]), plain, atol=1e-3)
    assert all(isinstance(each.embedding, str) for each in packed)


def test_one_text_is_one_vector_of_the_dimensions_asked_for(client: openai.OpenAI) -> None:
    (short,) = vectors(client, TEXTS[0], dimensions=16)
    (whole,) = vectors(client, TEXTS[0])
    assert short.shape == (16,)
    assert np.linalg.norm(short) == pytest.approx(1.0, rel=1e-3)
    np.testing.assert_allclose(short, whole[:16] / np.linalg.norm(whole[:16]), atol=1e-3)


def test_token_ids_stand_for_their_text(client: openai.OpenAI, vllm: VllmServer) -> None:
    ids = [vllm.post("/tokenize", {"model": MODEL, "prompt": text})["tokens"] for text in TEXTS[:2]]
    texts = vectors(client, TEXTS[:2])
    np.testing.assert_allclose(vectors(client, ids), texts, atol=1e-3)
    np.testing.assert_allclose(vectors(client, ids[0]), texts[:1], atol=1e-3)
    made = client.embeddings.create(model="vectors", input=ids)
    assert made.usage.prompt_tokens == sum(map(len, ids))


def test_what_was_asked_before_is_told_from_memory(client: openai.OpenAI) -> None:
    told = [
        client.embeddings.with_raw_response.create(model="vectors", input="asked twice")
        for _ in range(2)
    ]
    assert told[1].headers["x-ragstone-cache"] == "cache"
    first, second = (each.parse().data[0].embedding for each in told)
    assert first == second


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"model": "missing"}, openai.NotFoundError, "missing"),
        ({"model": "ranks"}, openai.BadRequestError, "/v1/rerank"),
        ({"input": []}, openai.BadRequestError, "input"),
        ({"input": ""}, openai.BadRequestError, "input"),
        ({"input": 7}, openai.BadRequestError, "input"),
        ({"input": [[]]}, openai.BadRequestError, ""),
        ({"input": [-1]}, openai.BadRequestError, ""),
        ({"input": [999_999]}, openai.BadRequestError, ""),
        ({"input": "word " * LONGEST}, openai.BadRequestError, str(LONGEST)),
        ({"input": ["a"] * 4097}, openai.BadRequestError, "4,096"),
        ({"dimensions": 0}, openai.BadRequestError, "dimensions"),
        ({"dimensions": WIDTH + 1}, openai.BadRequestError, "dimensions"),
        ({"encoding_format": "hex"}, openai.BadRequestError, "encoding_format"),
    ],
)
def test_what_cannot_be_embedded_is_refused_in_openai_s_shape(
    client: openai.OpenAI, change: dict[str, Any], error: type[openai.APIStatusError], words: str
) -> None:
    asked: dict[str, Any] = {"model": "vectors", "input": "rain", **change}
    with pytest.raises(error) as refused:
        client.embeddings.create(**asked)
    body = refused.value.body
    assert isinstance(body, dict)
    assert {"message", "type", "param", "code"} <= body.keys()
    assert words in body["message"]
    assert refused.value.response.headers["x-request-id"]


def test_a_chat_is_refused_where_vectors_are_made(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="/v1/embeddings"):
        client.chat.completions.create(
            model="vectors", messages=[{"role": "user", "content": "Hello"}]
        )


def rerank(service: RunningServer, **change: Any) -> httpx.Response:
    asked = {"model": "ranks", "query": TEXTS[1], "documents": TEXTS, **change}
    return httpx.post(f"{service.url}/v1/rerank", json=asked, timeout=60)


def test_documents_are_ranked_best_first(service: RunningServer) -> None:
    ranked = rerank(service).json()
    assert ranked["model"] == "ranks"
    assert ranked["usage"]["total_tokens"] > 0
    scores = [each["relevance_score"] for each in ranked["results"]]
    assert scores == sorted(scores, reverse=True)
    best = ranked["results"][0]
    assert (best["index"], best["document"]["text"]) == (1, TEXTS[1])
    assert best["relevance_score"] == pytest.approx(1.0, abs=1e-3)  # the query itself
    (only,) = rerank(service, top_n=1).json()["results"]
    assert only["index"] == 1


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"model": "missing"}, 404),
        ({"model": "vectors"}, 400),
        ({"query": None}, 400),
        ({"query": ""}, 400),
        ({"documents": None}, 400),
        ({"documents": []}, 400),
        ({"documents": [7]}, 400),
        ({"documents": ["word " * LONGEST]}, 400),
        ({"top_n": -1}, 400),
        ({"top_n": "all"}, 400),
    ],
)
def test_what_cannot_be_ranked_is_refused_in_openai_s_shape(
    service: RunningServer, change: dict[str, Any], status: int
) -> None:
    refused = rerank(service, **change)
    assert refused.status_code == status, refused.text
    assert {"message", "type", "param", "code"} <= refused.json()["error"].keys()

"""How to search, said over HTTP: searches, answers and vector stores."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

QUESTION = "days of leave"


def search(client: TestClient, **how: Any) -> Any:
    body = {"query": QUESTION, "collection": "handbook", **how}
    response = client.post("/v1/search", json=body)
    assert response.status_code == 200, response.text
    return response.json()["passages"]


def test_weights_of_the_fusion_can_be_said(reader: TestClient) -> None:
    lexical = search(reader, mode="lexical")
    words_only = search(reader, dense_weight=0.0)
    assert [one["document_id"] for one in words_only] == [one["document_id"] for one in lexical]
    by_rank = search(reader, fusion="rrf")
    assert by_rank[0]["score"] != search(reader, dense_weight=0.4)[1]["score"]


def test_min_score_leaves_out_what_scores_less(reader: TestClient) -> None:
    scores = [one["score"] for one in search(reader)]
    assert len(scores) == 2
    assert scores[1] < scores[0]
    assert [one["score"] for one in search(reader, min_score=scores[0])] == scores[:1]


def test_answers_search_as_they_are_told(reader: TestClient) -> None:
    body = {"question": "How many days of leave?", "collection": "handbook"}
    plain = reader.post("/v1/answers", json=body).json()
    assert len(plain["passages"]) == 2
    best = plain["passages"][0]["score"]
    answer = reader.post("/v1/answers", json={**body, "min_score": best}).json()
    assert [one["score"] for one in answer["passages"]] == [best]


def test_neighbours_come_with_exact_spans(client: TestClient, handbook: str, add_text: Any) -> None:
    text = "\n\n".join(
        f"Rule {number} of the house is about {what} and is told at some length in this paragraph, "
        "so that every paragraph is long enough to be a chunk of its own among the others here."
        for number, what in enumerate(("noise", "bicycles", "gardens", "cellars", "guests"))
    )
    file_id = add_text(client, "handbook", "rules.txt", text)
    body = {"query": "gardens", "collection": "handbook", "mode": "lexical", "limit": 1}
    (alone,) = client.post("/v1/search", json=body).json()["passages"]
    (wide,) = client.post("/v1/search", json={**body, "neighbours": 1}).json()["passages"]
    assert len(wide["text"]) > len(alone["text"])
    assert alone["text"] in wide["text"]
    content = client.get(f"/v1/vector_stores/{handbook}/files/{file_id}/content").json()
    stored = content["data"][0]["text"]
    assert stored[wide["start_char"] : wide["end_char"]] == wide["text"]

    question = {"question": "gardens", "collection": "handbook", "limit": 1, "neighbours": 1}
    answer = client.post("/v1/answers", json=question).json()
    assert answer["citations"]
    for cited in answer["citations"]:
        assert stored[cited["start_char"] : cited["end_char"]] == cited["text"]
    assert answer["unverified"] == 0


def test_what_is_not_set_up_is_refused_with_its_name(reader: TestClient) -> None:
    for name in ("rerank", "multi_query"):
        body = {"query": QUESTION, "collection": "handbook", name: True}
        response = reader.post("/v1/search", json=body)
        assert response.status_code == 400
        assert response.json()["error"]["param"] == name


@pytest.mark.parametrize(
    "wrong",
    [{"dense_weight": 1.5}, {"diversity": -1}, {"neighbours": 11}, {"fusion": "sum"}],
    ids=str,
)
def test_wrong_values_are_refused(reader: TestClient, wrong: Any) -> None:
    for path, body in (("search", {"query": QUESTION}), ("answers", {"question": QUESTION})):
        whole = {**body, "collection": "handbook", **wrong}
        response = reader.post(f"/v1/{path}", json=whole)
        assert response.status_code in {400, 422}
        assert next(iter(wrong)) in response.text


def test_variants_of_the_settings_are_searched(
    fast_settings: Any, open_client: Any, add_text: Any
) -> None:
    small = {"embedder": "hashing", "chunk_tokens": 60, "chunk_overlap_tokens": 10}
    # Any importable function will do: this one splits a question into its words.
    client = open_client(fast_settings(retrieval={**small, "variants": "shlex.split"}))
    client.post("/v1/vector_stores", json={"name": "handbook"})
    add_text(client, "handbook", "leave.txt", "Employees have 27 days of leave.")
    add_text(client, "handbook", "travel.txt", "Flights need the approval of the manager.")
    how = {"query": "leave flights", "collection": "handbook", "mode": "lexical"}
    alone = client.post("/v1/search", json=how).json()["passages"]
    more = client.post("/v1/search", json={**how, "multi_query": True}).json()["passages"]
    assert len(alone) == len(more) == 2
    assert [one["score"] for one in alone] != [one["score"] for one in more]


def test_a_vector_store_takes_openais_weights(reader: TestClient) -> None:
    def scores(embedding: float, text: float) -> list[float]:
        weights = {"embedding_weight": embedding, "text_weight": text}
        body = {"query": QUESTION, "ranking_options": {"hybrid_search": weights}}
        response = reader.post("/v1/vector_stores/handbook/search", json=body)
        assert response.status_code == 200, response.text
        return [one["score"] for one in response.json()["data"]]

    assert scores(1, 0) == [one["score"] for one in search(reader, dense_weight=1.0, limit=10)]
    assert scores(1, 3) == [one["score"] for one in search(reader, dense_weight=0.25, limit=10)]
    body = {"query": "x", "ranking_options": {"hybrid_search": {"embedding_weight": 0}}}
    assert reader.post("/v1/vector_stores/handbook/search", json=body).status_code in {
        400,
        422,
    }

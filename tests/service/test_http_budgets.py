"""Budgets and usage over HTTP, and answers that are charged."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from starlette.testclient import TestClient

import model_server
from service.keys import Opens
from service.limits import Admission
from service.questions import Questions
from service.wiring import Components
from waiting import until

PRICED = {"prices": {"echo": {"input_per_million": 1000.0, "output_per_million": 1000.0}}}


@pytest.fixture
def priced(fast_settings: Any, open_client: Any, add_text: Any) -> TestClient:
    """A service whose answers cost a thousandth for each token."""
    client: TestClient = open_client(fast_settings(gateway=PRICED))
    client.post("/v1/vector_stores", json={"name": "handbook"})
    add_text(client, "handbook", "leave.txt", "Employees have 27 days of leave each year.")
    return client


def ask(client: TestClient, **more: Any) -> Any:
    body = {"question": "How many days of leave?", "collection": "handbook", **more}
    return client.post("/v1/answers", json=body)


def settled(client: TestClient, requests: int) -> dict[str, Any]:
    """Return the usage once so many requests are in it."""
    until(lambda: [row["requests"] for row in usage(client)] == [requests])
    (row,) = usage(client)
    return dict(row)


def usage(client: TestClient) -> Any:
    return client.get("/v1/usage").json()["data"]


def put_budget(client: TestClient, amount: str) -> Any:
    """Set the budget of a month, and wait until calls are held to it."""
    put = client.post("/v1/budgets", json={"period": "month", "amount": amount})
    assert put.status_code == 200, put.text
    parts = client.app.state.components  # type: ignore[attr-defined]
    until(lambda: parts.clerk.book.revision == parts.budgets.book().revision)
    return put.json()


def test_answers_are_charged_to_a_budget_until_it_is_spent(priced: TestClient) -> None:
    budget = put_budget(priced, "8")
    answered = ask(priced)
    assert answered.status_code == 200, answered.text
    row = settled(priced, 1)
    usage = answered.json()["usage"]
    assert row["prompt_tokens"] == usage["prompt_tokens"]
    tokens = usage["prompt_tokens"] + usage["completion_tokens"]
    assert float(row["cost"]) == pytest.approx(tokens / 1000)
    standing = priced.get(f"/v1/budgets/{budget['id']}").json()
    assert standing["spent"] == row["cost"]
    put_budget(priced, row["cost"])
    until(lambda: ask(priced).status_code == 429)  # what was borrowed may be spent
    refused = ask(priced)
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "insufficient_quota"
    assert int(refused.headers["retry-after"]) > 0
    assert priced.delete(f"/v1/budgets/{budget['id']}").json()["deleted"] is True
    assert priced.get("/v1/budgets").json()["data"] == []


def test_a_conversation_that_is_kept_counts_as_part_of_the_prompt(priced: TestClient) -> None:
    said = {"type": "message", "role": "user", "content": "leave " * 4_000}
    conversation = priced.post("/v1/conversations", json={"items": [said]}).json()["id"]
    put_budget(priced, "8")
    assert ask(priced).status_code == 200
    refused = ask(priced, conversation=conversation)
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "insufficient_quota"


def test_limits_of_a_key_hold_for_answers(fast_settings: Any, open_client: Any) -> None:
    client = open_client(
        fast_settings(
            server={"authentication": "on"}, gateway={"key_limits": {"requests_per_minute": 1}}
        )
    )
    _, text = client.app.state.components.keys.create("ada", opens=Opens(scopes=("ask", "write")))
    client.headers["authorization"] = f"Bearer {text}"
    client.post("/v1/vector_stores", json={"name": "handbook"})
    assert ask(client).status_code == 200
    refused = ask(client)
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert refused.headers["x-ratelimit-limit-requests"] == "1"
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert 55 <= int(refused.headers["retry-after"]) <= 60


EMBED = {"model": "local/embedder", "input": ["How many days?", "Leave"]}
RERANK = {"model": "local/reranker", "query": "leave", "documents": ["Leave is long.", "Trains"]}
SEARCH = {"query": "How many days of leave?", "collection": "handbook"}
LOCAL = {
    "local/embedder": ("/v1/embeddings", EMBED),
    "local/reranker": ("/v1/rerank", RERANK),
    "local/search": ("/v1/search", SEARCH),
}


@pytest.mark.parametrize("model", LOCAL)
def test_what_this_process_computes_is_charged_and_limited(
    fast_settings: Any, open_client: Any, model: str
) -> None:
    client = open_client(
        fast_settings(
            gateway={
                "prices": {model: {"input_per_million": 1000.0}},
                "model_limits": {model: {"requests_per_minute": 2}},
            },
            retrieval={
                "embedder": "hashing",
                "chunk_tokens": 60,
                "chunk_overlap_tokens": 10,
                "reranker": "reranking.by_shared_words",
            },
        )
    )
    client.post("/v1/vector_stores", json={"name": "handbook"})
    path, body = LOCAL[model]
    answered = client.post(path, json=body)
    assert answered.status_code == 200, answered.text
    assert answered.headers["x-ratelimit-remaining-requests"] == "1"
    row = settled(client, 1)
    used = answered.json().get("usage", {"total_tokens": len(SEARCH["query"]) // 4})
    assert row["prompt_tokens"] == used["total_tokens"] > 0
    assert float(row["cost"]) == pytest.approx(row["prompt_tokens"] / 1000)
    assert client.post(path, json=body).status_code == 200
    refused = client.post(path, json=body)
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/answers", {"question": "How many days?", "collection": "handbook"}),
        (
            "/v1/chat/completions",
            {"model": "rag/handbook", "messages": [{"role": "user", "content": "How many days?"}]},
        ),
        ("/v1/responses", {"model": "rag/handbook", "input": "How many days?"}),
    ],
)
def test_answers_say_what_is_left_of_a_limit(
    fast_settings: Any, open_client: Any, path: str, body: dict[str, Any], stream: bool
) -> None:
    limits = {"echo": {"requests_per_minute": 5, "tokens_per_minute": 1_000_000}}
    client = open_client(fast_settings(gateway={"model_limits": limits}))
    client.post("/v1/vector_stores", json={"name": "handbook"})
    answered = client.post(path, json={**body, "stream": stream})
    assert answered.status_code == 200, answered.text
    assert answered.headers["x-ratelimit-remaining-requests"] == "4"
    assert answered.headers["x-ratelimit-limit-tokens"] == "1000000"


@pytest.mark.parametrize("stream", [False, True])
def test_responses_of_a_model_say_what_is_left_of_its_limit(
    fast_settings: Any, open_client: Any, stream: bool
) -> None:
    with model_server.serving() as server:
        client = open_client(
            fast_settings(
                gateway={
                    "upstreams": {"u": {"urls": [server.url]}},
                    "routes": {"m": {"targets": [{"upstream": "u"}]}},
                    "model_limits": {"m": {"requests_per_minute": 5}},
                }
            )
        )
        body = {"model": "m", "input": "hi", "stream": stream}
        answered = client.post("/v1/responses", json=body)
        assert answered.status_code == 200, answered.text
        assert answered.headers["x-ratelimit-remaining-requests"] == "4"


@pytest.mark.parametrize(
    "body",
    [
        {"amount": "-1"},
        {"amount": "nan"},
        {"amount": 5},
        {"amount": "1", "period": "week"},
        {"amount": "1", "key": "k", "tenant": "t"},
        {"amount": "1", "tenant": ""},
    ],
)
def test_malformed_budgets_are_refused(client: TestClient, body: dict[str, Any]) -> None:
    client.app.state.components.keys.create("k")  # type: ignore[attr-defined]
    assert client.post("/v1/budgets", json=body).status_code == 400


def test_usage_is_told_apart_by_what_is_asked(client: TestClient) -> None:
    found = client.get("/v1/usage", params={"by": ["key", "day"], "since": "2026-01-01"})
    assert found.json()["data"] == []
    assert client.get("/v1/usage", params={"by": "price"}).status_code == 400
    assert client.get("/v1/usage", params={"since": "yesterday"}).status_code == 400
    assert client.get("/v1/budgets/none").status_code == 404


def test_one_who_leaves_is_charged_for_what_is_computed(priced: TestClient) -> None:
    components: Components = priced.app.state.components  # type: ignore[attr-defined]
    questions = Questions(components, Admission(4))
    may_end, has_ended = threading.Event(), threading.Event()

    def compute() -> str:
        may_end.wait(10)
        has_ended.set()
        return "vectors"

    async def leave() -> None:
        working = asyncio.create_task(
            questions.work(compute, model="echo", texts=["a text"], used=lambda _: 7)
        )
        await asyncio.sleep(0.1)
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
        may_end.set()
        while not has_ended.is_set():
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)

    asyncio.run(leave())
    row = settled(priced, 1)
    assert (row["prompt_tokens"], float(row["cost"])) == (7, pytest.approx(0.007))

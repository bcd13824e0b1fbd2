"""Chat completions and models in OpenAI's shapes, read off the wire."""

from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.testclient import TestClient

QUESTION = {"role": "user", "content": "How many days of leave?"}
BODY: dict[str, Any] = {"model": "rag/handbook", "messages": [QUESTION]}
URL = "/v1/chat/completions"


def chunks_of(response: Any) -> list[Any]:
    assert response.headers["content-type"].startswith("text/event-stream")
    lines = [line.removeprefix("data: ") for line in response.text.strip().split("\n\n")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_every_collection_is_a_model(client: TestClient, handbook: str) -> None:
    client.post("/v1/vector_stores", json={"name": "a b?c%"})
    models = client.get("/v1/models").json()
    assert models["object"] == "list"
    assert [model["id"] for model in models["data"]] == ["rag/handbook", "rag/a b?c%"]
    for escaped in ("rag/handbook", "rag%2Fhandbook", "rag%2Fa%20b%3Fc%25"):
        model = client.get(f"/v1/models/{escaped}").json()
        assert model in models["data"]


@pytest.mark.parametrize("name", ["rag/missing", "missing", "gpt-4o"])
def test_an_unknown_model_is_a_404(reader: TestClient, name: str) -> None:
    for response in (
        reader.get(f"/v1/models/{name}"),
        reader.post(URL, json={**BODY, "model": name}),
        reader.post(URL, json={**BODY, "model": name, "stream": True}),
    ):
        assert response.status_code == 404
        assert response.json()["error"]["code"] == "model_not_found"


def test_a_completion_has_openai_s_shape_and_our_citations(
    client: TestClient, handbook: str
) -> None:
    completion = client.post(URL, json=BODY).json()
    assert completion["object"] == "chat.completion"
    assert completion["id"].startswith("chatcmpl-")
    assert completion["model"] == "rag/handbook"
    (choice,) = completion["choices"]
    assert (choice["index"], choice["finish_reason"]) == (0, "stop")
    message = choice["message"]
    assert (message["role"], message["content"]) == ("assistant", QUESTION["content"])
    (cited,) = message["citations"]
    (annotation,) = message["annotations"]
    assert annotation == {
        "type": "file_citation",
        "file_id": cited["document_id"],
        "filename": "leave.txt",
        "index": cited["answer_end"],
    }
    usage = completion["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_usage_counts_the_retrieved_passages(client: TestClient, handbook: str) -> None:
    few = client.post(URL, json=BODY).json()["usage"]
    only = {"type": "eq", "key": "topic", "value": "leave"}
    fewer = client.post(URL, json={**BODY, "filters": only}).json()["usage"]
    assert few["prompt_tokens"] > fewer["prompt_tokens"] > few["completion_tokens"]
    assert few["completion_tokens"] == fewer["completion_tokens"] > 0


def test_the_stream_opens_with_the_role_and_ends_with_the_reason(
    client: TestClient, handbook: str
) -> None:
    chunks = chunks_of(client.post(URL, json={**BODY, "stream": True}))
    whole = client.post(URL, json=BODY).json()["choices"][0]["message"]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0] == {"role": "assistant", "content": "", "refusal": None}
    assert "".join(delta.get("content", "") for delta in deltas) == whole["content"]
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert reasons == [None] * (len(chunks) - 1) + ["stop"]
    assert deltas[-1]["annotations"] == whole["annotations"]
    assert deltas[-1]["citations"] == whole["citations"]
    assert all("usage" not in chunk for chunk in chunks)


def test_usage_comes_last_in_a_stream_that_asks_for_it(client: TestClient, handbook: str) -> None:
    body = {**BODY, "stream": True, "stream_options": {"include_usage": True}}
    chunks = chunks_of(client.post(URL, json=body))
    assert all(chunk["usage"] is None for chunk in chunks[:-1])
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == client.post(URL, json=BODY).json()["usage"]


def test_max_tokens_cuts_and_says_so(client: TestClient, handbook: str) -> None:
    choice = client.post(URL, json={**BODY, "max_tokens": 2}).json()["choices"][0]
    assert choice["finish_reason"] == "length"
    assert choice["message"]["content"] == "How many"


def test_the_last_user_message_is_the_question(client: TestClient, handbook: str) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Who books trains?"},
        {"role": "assistant", "content": "The team.", "refusal": None},
        {"role": "developer", "content": [{"type": "text", "text": "Be kind."}]},
        {
            "role": "user",
            "content": [{"type": "text", "text": "And"}, {"type": "text", "text": "leave?"}],
        },
    ]
    completion = client.post(URL, json={**BODY, "messages": messages}).json()
    assert completion["choices"][0]["message"]["content"] == "And\nleave?"


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [{"role": "system", "content": "Be brief."}],
        [QUESTION, {"role": "assistant", "content": "It is"}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}],
        [{"role": "tool", "content": "42", "tool_call_id": "1"}],
        [{"role": "user", "content": ""}],
    ],
)
def test_messages_that_ask_nothing_are_a_400(reader: TestClient, messages: Any) -> None:
    response = reader.post(URL, json={**BODY, "messages": messages})
    assert response.status_code == 400, response.text
    assert response.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 2),
        ("tools", [{"type": "function", "function": {"name": "f"}}]),
        ("tool_choice", "required"),
        ("functions", [{"name": "f"}]),
        ("response_format", {"type": "json_schema", "json_schema": {"name": "x"}}),
        ("response_format", {"type": "json_object"}),
        ("logprobs", True),
        ("logit_bias", {"50256": -100}),
        ("stop", ["."]),
        ("store", True),
        ("modalities", ["text", "audio"]),
    ],
)
def test_what_would_change_the_answer_is_refused_by_name(
    reader: TestClient, name: str, value: Any
) -> None:
    response = reader.post(URL, json={**BODY, name: value})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == name


def test_what_changes_nothing_is_accepted(client: TestClient, handbook: str) -> None:
    harmless = {
        "temperature": 0.2,
        "top_p": 1,
        "seed": 7,
        "user": "me",
        "metadata": {"a": "b"},
        "store": False,
        "n": 1,
        "tools": [],
        "response_format": {"type": "text"},
        "presence_penalty": 0.5,
        "parallel_tool_calls": True,
        "max_completion_tokens": 100,
    }
    assert client.post(URL, json={**BODY, **harmless}).status_code == 200


def test_an_engine_that_fails_midway_ends_the_stream_with_an_error(
    fast_settings: Any, open_client: Any, add_text: Any
) -> None:
    generation = {"engine": "echo", "engine_options": {"fail_after": 2}}
    client = open_client(fast_settings(generation=generation))
    client.post("/v1/vector_stores", json={"name": "handbook"})
    add_text(client, "handbook", "leave.txt", "Employees have 27 days of leave.")
    response = client.post(URL, json={**BODY, "stream": True})
    last = json.loads(response.text.strip().split("\n\n")[-1].removeprefix("data: "))
    assert last["error"]["code"] == "engine_failed"
    assert "[DONE]" not in response.text

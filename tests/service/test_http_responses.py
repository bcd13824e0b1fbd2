"""Responses over documents, read off the wire: typed events, citations, later turns, deletion."""

from __future__ import annotations

import json
import logging
import time
from typing import Any

import pytest
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter
from sqlalchemy.exc import DataError
from starlette.testclient import TestClient

import chat_server
from infra.contracts import Readers
from infra.errors import NotFound, StorageFailed
from service.keys import Opens
from service.wiring import Components

EVENTS: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
BODY: dict[str, Any] = {"model": "rag/handbook", "input": "How many days of leave?"}


def events_of(response: Any) -> list[dict[str, Any]]:
    assert response.headers["content-type"].startswith("text/event-stream")
    frames = [frame.split("\n") for frame in response.text.strip().split("\n\n")]
    for name, data in frames:
        assert name == f"event: {json.loads(data.removeprefix('data: '))['type']}"
    return [json.loads(data.removeprefix("data: ")) for _, data in frames]


def test_a_collection_answers_with_citations(client: TestClient, handbook: str) -> None:
    response = client.post("/v1/responses", json=BODY).json()
    search, message = response["output"]
    assert (search["type"], search["results"]) == ("file_search_call", None)
    (part,) = message["content"]
    assert part["text"]
    assert part["annotations"]
    for annotation in part["annotations"]:
        assert annotation["type"] == "file_citation"
        text = client.get(f"/v1/files/{annotation['file_id']}/content").text
        assert text[annotation["start_char"] : annotation["end_char"]] == annotation["quote"]
    assert response["status"] == "completed"
    assert response["usage"]["input_tokens"] > 0


def test_the_stream_ends_with_what_the_plain_answer_is(client: TestClient, handbook: str) -> None:
    plain = client.post("/v1/responses", json=BODY).json()
    events = events_of(client.post("/v1/responses", json={**BODY, "stream": True}))
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[-1]["type"] == "response.completed"
    told = events[-1]["response"]
    assert told["output"][1]["content"] == plain["output"][1]["content"]
    deltas = [e["delta"] for e in events if e["type"] == "response.output_text.delta"]
    assert "".join(deltas) == told["output"][1]["content"][0]["text"]


def test_a_search_is_told_in_openai_s_order_and_types(client: TestClient, handbook: str) -> None:
    include = ["file_search_call.results"]
    told = client.post("/v1/responses", json={**BODY, "stream": True, "include": include})
    events = events_of(told)
    for event in events:
        EVENTS.validate_python(event, strict=False)
    kinds = [event["type"].removeprefix("response.") for event in events]
    written = {"output_text.delta", "output_text.annotation.added"}
    assert [kind for kind in kinds if kind not in written] == [
        "created", "in_progress",
        "output_item.added", "file_search_call.in_progress", "file_search_call.searching",
        "file_search_call.completed", "output_item.done",
        "output_item.added", "content_part.added",
        "output_text.done", "content_part.done", "output_item.done",
        "completed",
    ]  # fmt: skip
    first, last = kinds.index("content_part.added"), kinds.index("output_text.done")
    assert set(kinds[first + 1 : last]) == written
    search, message = events[-1]["response"]["output"]
    assert search["queries"] == [BODY["input"]]
    assert search["results"]
    assert [search["status"], message["status"]] == ["completed", "completed"]
    for event in events:
        if "item_id" in event:
            item = (search, message)[event["output_index"]]
            assert event["item_id"] == item["id"]
    added = [e for e in events if e["type"] == "response.output_text.annotation.added"]
    assert [event["annotation_index"] for event in added] == list(range(len(added)))
    assert [event["annotation"] for event in added] == message["content"][0]["annotations"]


def test_what_was_found_is_shown_where_it_is_asked_for(client: TestClient, handbook: str) -> None:
    include = ["file_search_call.results"]
    response = client.post("/v1/responses", json={**BODY, "include": include}).json()
    assert response["output"][0]["results"][0]["file_id"].startswith("file-")


def test_a_response_can_be_read_continued_and_deleted(client: TestClient, handbook: str) -> None:
    first = client.post("/v1/responses", json=BODY).json()
    assert client.get(f"/v1/responses/{first['id']}").json() == first
    items = client.get(f"/v1/responses/{first['id']}/input_items").json()
    assert [item["content"] for item in items["data"]] == [BODY["input"]]
    again = {**BODY, "input": "And in the first year?", "previous_response_id": first["id"]}
    second = client.post("/v1/responses", json=again).json()
    assert second["previous_response_id"] == first["id"]
    gone = client.delete(f"/v1/responses/{first['id']}").json()
    assert gone == {"id": first["id"], "object": "response.deleted", "deleted": True}
    assert client.get(f"/v1/responses/{first['id']}").status_code == 404
    assert client.post("/v1/responses", json=again).status_code == 404
    assert client.get(f"/v1/responses/{second['id']}").status_code == 200


def test_erasing_a_document_erases_the_turns_that_repeat_what_was_quoted(
    client: TestClient, handbook: str
) -> None:
    first = client.post("/v1/responses", json=BODY).json()
    file_id = first["output"][1]["content"][0]["annotations"][0]["file_id"]
    made = client.post("/v1/vector_stores", json={"name": "other"}).json()["id"]
    other = {**BODY, "model": "rag/other", "previous_response_id": first["id"]}
    second = client.post("/v1/responses", json=other).json()
    assert client.get(f"/v1/responses/{second['id']}").status_code == 200
    client.delete(f"/v1/files/{file_id}")
    for gone in (first, second):
        assert client.get(f"/v1/responses/{gone['id']}").status_code == 404
    client.delete(f"/v1/vector_stores/{made}")


def test_what_is_not_to_be_stored_is_not(client: TestClient, handbook: str) -> None:
    response = client.post("/v1/responses", json={**BODY, "store": False}).json()
    assert client.get(f"/v1/responses/{response['id']}").status_code == 404


@pytest.mark.parametrize("is_stream", [False, True])
def test_what_cannot_be_stored_is_told_all_the_same(
    client: TestClient, handbook: str, is_stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    components = client.app.state.components  # type: ignore[attr-defined]
    with components.database.write() as connection:  # as where the disk is full
        connection.exec_driver_sql(
            "CREATE TRIGGER full BEFORE INSERT ON response "
            "BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"
        )
    told = client.post("/v1/responses", json={**BODY, "stream": is_stream})
    assert told.status_code == 200
    response = events_of(told)[-1]["response"] if is_stream else told.json()
    assert (response["status"], response["store"]) == ("completed", False)
    assert client.get(f"/v1/responses/{response['id']}").status_code == 404
    assert "is not stored" in caplog.text


def test_a_conversation_that_is_too_long_to_keep_is_answered(
    fast_settings: Any, open_client: Any, add_text: Any
) -> None:
    client = open_client(fast_settings(server={"max_body_bytes": 1024}))
    client.post("/v1/vector_stores", json={"name": "handbook"})
    add_text(client, "handbook", "leave.txt", "Employees have 27 days of leave.")
    told = client.post("/v1/responses", json={**BODY, "input": "leave " * 100}).json()
    assert (told["status"], told["store"]) == ("completed", False)


@pytest.mark.parametrize(
    ("change", "status", "parameter"),
    [
        ({"model": "rag/missing"}, 404, None),
        ({"model": "missing"}, 404, None),
        ({"previous_response_id": "resp_none"}, 404, None),
        ({"input": []}, 400, "input"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, 400, "input"),
        ({"input": [{"role": "assistant", "content": "Hi"}]}, 400, "input"),
        ({"background": True}, 400, "background"),
        ({"include": ["message.output_text.logprobs"]}, 400, "include"),
        ({"truncation": "auto"}, 400, "truncation"),
        ({"text": {"format": {"type": "json_object"}}}, 400, "text"),
        ({"text": {"format": {"type": "json_schema", "schema": {}}}}, 400, "text"),
        ({"tools": [{"type": "function", "name": "f"}]}, 400, "tools"),
        ({"conversation": "conv_none"}, 404, None),
        ({"conversation": "c", "previous_response_id": "r"}, 400, "previous_response_id"),
        ({"conversation": {"name": "c"}}, 400, "conversation"),
        ({"max_output_tokens": 0}, 400, "max_output_tokens"),
        ({"unknown": 1}, 400, "unknown"),
    ],
)
def test_what_cannot_be_done_is_refused(
    reader: TestClient, change: dict[str, Any], status: int, parameter: str | None
) -> None:
    for stream in (False, True):
        answer = reader.post("/v1/responses", json={**BODY, **change, "stream": stream})
        assert answer.status_code == status, answer.text
        assert (answer.json()["error"]["param"] or "").split(".")[0] == (parameter or "")


def test_instructions_reach_the_engine_as_what_the_application_says(
    client: TestClient, handbook: str
) -> None:
    """The engine `echo` counts the whole prompt."""
    plain = client.post("/v1/responses", json=BODY).json()
    told = client.post("/v1/responses", json={**BODY, "instructions": "Be brief. " * 20}).json()
    assert told["instructions"].startswith("Be brief.")
    assert told["usage"]["input_tokens"] >= plain["usage"]["input_tokens"] + 40


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("as_object", [False, True])
def test_a_conversation_goes_before_and_grows_by_the_response(
    client: TestClient, handbook: str, stream: bool, as_object: bool
) -> None:
    said = {"type": "message", "role": "user", "content": "We speak of leave. " * 20}
    number = client.post("/v1/conversations", json={"items": [said]}).json()["id"]
    body = {**BODY, "conversation": {"id": number} if as_object else number, "stream": stream}
    response = client.post("/v1/responses", json=body)
    assert response.status_code == 200, response.text
    told = events_of(response)[-1]["response"] if stream else response.json()
    assert told["conversation"] == {"id": number}
    plain = client.post("/v1/responses", json=BODY).json()
    assert told["usage"]["input_tokens"] >= plain["usage"]["input_tokens"] + 60
    items = client.get(f"/v1/conversations/{number}/items?order=asc").json()["data"]
    assert [item["role"] for item in items] == ["user", "user", "assistant"]
    assert items[1]["content"][0]["text"] == BODY["input"]
    assert items[2]["content"][0]["text"] == told["output"][1]["content"][0]["text"]
    file_id = told["output"][1]["content"][0]["annotations"][0]["file_id"]
    client.app.state.components.conversations.erase([file_id])  # type: ignore[attr-defined]
    items = client.get(f"/v1/conversations/{number}/items").json()["data"]
    assert [item["role"] for item in items] == ["user", "user"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_that_is_sent_again_by_its_key_gets_the_same_response(
    client: TestClient, handbook: str, stream: bool
) -> None:
    number = client.post("/v1/conversations", json={}).json()["id"]
    body = {**BODY, "stream": stream, "conversation": number}
    key = {"Idempotency-Key": "first"}
    first = client.post("/v1/responses", json=body, headers=key)
    again = client.post("/v1/responses", json=body, headers=key)
    assert (again.status_code, again.content) == (200, first.content)
    assert again.headers["content-type"] == first.headers["content-type"]
    assert (first.headers.get("x-ragstone-cache"), again.headers["x-ragstone-cache"]) == (
        None,
        "replayed",
    )
    assert len(client.get(f"/v1/conversations/{number}/items").json()["data"]) == 2
    other = client.post("/v1/responses", json={**body, "input": "Why?"}, headers=key)
    assert (other.status_code, other.json()["error"]["param"]) == (400, "idempotency-key")
    apart = client.post("/v1/responses", json=body, headers={"Idempotency-Key": "second"})
    assert apart.content != first.content
    repeated = client.app.state.components.repeated_responses  # type: ignore[attr-defined]
    assert repeated.forget(repeated.documents()) == 2
    assert client.post("/v1/responses", json=body, headers=key).content != first.content


def test_what_was_refused_is_asked_again_with_the_same_key(
    client: TestClient, handbook: str
) -> None:
    key = {"Idempotency-Key": "k"}
    body = {**BODY, "model": "rag/later"}
    assert client.post("/v1/responses", json=body, headers=key).status_code == 404
    client.post("/v1/vector_stores", json={"name": "later"})
    assert client.post("/v1/responses", json=body, headers=key).status_code == 200


def test_a_response_that_was_deleted_is_not_told_again(client: TestClient, handbook: str) -> None:
    key = {"Idempotency-Key": "k"}
    first = client.post("/v1/responses", json=BODY, headers=key).json()
    client.delete(f"/v1/responses/{first['id']}")
    again = client.post("/v1/responses", json=BODY, headers=key).json()
    assert again["id"] != first["id"]


def test_deleting_one_response_forgets_that_one_alone(client: TestClient, handbook: str) -> None:
    def ask(key: str) -> str:
        answered = client.post("/v1/responses", json=BODY, headers={"Idempotency-Key": key})
        return str(answered.json()["id"])

    first, other = ask("first"), ask("other")
    client.delete(f"/v1/responses/{first}")
    assert ask("other") == other
    assert ask("first") != first


@pytest.mark.parametrize("path", ["documents", "model"])
def test_a_response_that_is_told_again_counts_as_a_request_and_costs_nothing(
    path: str, fast_settings: Any, open_client: Any, add_text: Any
) -> None:
    with chat_server.serving("27 days.") as model:
        gateway = {
            "upstreams": {"here": {"urls": [model.url]}},
            "routes": {"m": {"targets": [{"upstream": "here", "model": "tiny"}]}},
            "prices": {
                "echo": {"input_per_million": 1000.0, "output_per_million": 1000.0},
                "m": {"input_per_million": 1000.0, "output_per_million": 1000.0},
            },
            "key_limits": {"requests_per_minute": 3},
        }
        chosen = fast_settings(
            server={"authentication": "on"}, gateway=gateway, jobs={"in_process": False}
        )
        client = open_client(chosen)
        components: Components = client.app.state.components
        whole = components.collections.create("handbook", components.recipe())
        assert whole.name == "handbook"
        key = components.keys.create("ada", opens=Opens())[1]
        headers = {"Authorization": f"Bearer {key}", "Idempotency-Key": "one"}
        body = BODY if path == "documents" else {**BODY, "model": "m"}
        answers = [client.post("/v1/responses", json=body, headers=headers) for _ in range(4)]
        assert [each.status_code for each in answers] == [200, 200, 200, 429]
        assert len({each.content for each in answers[:3]}) == 1
        left = [int(each.headers["x-ratelimit-remaining-requests"]) for each in answers[:3]]
        assert left == [2, 1, 0]
        usage = answers[0].json()["usage"]
        tokens = usage["input_tokens"] + usage["output_tokens"]
        deadline = time.monotonic() + 30
        headers.pop("Idempotency-Key")
        while True:
            rows = client.get("/v1/usage", headers=headers).json()["data"]
            if rows and rows[0]["requests"] == 3:
                break
            assert time.monotonic() < deadline, rows
            time.sleep(0.1)
        assert float(rows[0]["cost"]) == pytest.approx(tokens / 1000)


def test_a_response_is_not_told_again_to_who_may_read_its_documents_no_more(
    fast_settings: Any, open_client: Any
) -> None:
    chosen = fast_settings(server={"authentication": "on"}, jobs={"in_process": False})
    client = open_client(chosen)
    components: Components = client.app.state.components
    opens = {"operator": Opens(), "ada": Opens(tenant="acme", groups=("group:board",))}
    keys = {name: components.keys.create(name, opens=each)[1] for name, each in opens.items()}
    as_operator = {"Authorization": f"Bearer {keys['operator']}"}
    as_ada = {"Authorization": f"Bearer {keys['ada']}"}
    client.post("/v1/vector_stores", json={"name": "shared"}, headers=as_operator)
    uploaded = client.post(
        "/v1/files",
        files={"file": ("leave.txt", b"Employees have 27 days of leave.")},
        data={"purpose": "assistants"},
        headers=as_ada,
    ).json()["id"]
    path = "/v1/vector_stores/shared/files"
    attach = {"file_id": uploaded, "allow": ["group:board"]}
    attached = client.post(path, json=attach, headers=as_ada)
    assert attached.status_code == 200, attached.text
    components.ingester.process(components.collections.get("shared"), uploaded)

    def ask() -> Any:
        body = {"model": "rag/shared", "input": "How many days of leave?"}
        return client.post(
            "/v1/responses", json=body, headers={**as_ada, "Idempotency-Key": "one"}
        ).json()

    first = ask()
    assert "27 days" in str(first["output"])
    assert ask()["id"] == first["id"]
    whole = components.collections.get("shared")
    components.documents.update(whole, uploaded, readers=Readers(None, ("group:staff",)))
    again = ask()
    assert again["id"] != first["id"]
    assert "27 days" not in str(again["output"])  # ids may hold the number


@pytest.mark.parametrize(
    ("error", "level"),
    [
        (StorageFailed("Database: disk I/O error"), logging.WARNING),
        (NotFound("conversation", "conv_1"), logging.WARNING),
        (DataError("INSERT", {}, ValueError("a fault of ours")), logging.ERROR),
    ],
    ids=["a database that is down", "a conversation that is gone", "a fault of ours"],
)
@pytest.mark.parametrize("route", ["responses", "answers"])
def test_what_cannot_be_kept_is_told_all_the_same(
    route: str,
    error: Exception,
    level: int,
    client: TestClient,
    handbook: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    components: Components = client.app.state.components  # type: ignore[attr-defined]
    number = client.post("/v1/conversations", json={}).json()["id"]

    def fail(*_: Any, **__: Any) -> None:
        raise error

    components.conversations.append = fail  # type: ignore[method-assign]
    components.responses.put = fail  # type: ignore[method-assign]
    body: dict[str, Any] = {**BODY, "conversation": number}
    if route == "answers":
        body = {"question": BODY["input"], "collection": handbook, "conversation": number}
    answered = client.post(f"/v1/{route}", json=body)
    assert answered.status_code == 200, answered.text
    told = answered.json()
    if route == "responses":
        assert (told["status"], told["store"]) == ("completed", False)
    lines = [each for each in caplog.records if each.name == "service.keeping"]
    assert {each.levelno for each in lines} == {level}
    assert all(bool(each.exc_info) is (level == logging.ERROR) for each in lines)

"""Native questions over HTTP: answers, their events, searches, limits, reading one's own writes."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest
from starlette.exceptions import HTTPException
from starlette.testclient import TestClient

from service.limits import Admission

LEAVE = {"question": "How many days of leave?", "collection": "handbook"}


def events_of(response: Any) -> list[tuple[str, Any]]:
    assert response.headers["content-type"].startswith("text/event-stream")
    events = []
    for block in response.text.strip().split("\n\n"):
        name, data = block.split("\n")
        events.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return events


def test_an_answer_carries_citations_that_equal_the_stored_text(reader: TestClient) -> None:
    answer = reader.post("/v1/answers", json=LEAVE).json()
    assert answer["text"] == LEAVE["question"]  # the engine echoes
    assert answer["answerable"] is True
    assert len(answer["citations"]) == 1
    cited = answer["citations"][0]
    content = reader.get(f"/v1/vector_stores/handbook/files/{cited['document_id']}/content")
    stored = content.json()["data"][0]["text"]
    assert stored[cited["start_char"] : cited["end_char"]] == cited["text"]
    assert answer["usage"]["prompt_tokens"] > answer["usage"]["completion_tokens"] > 0
    assert answer["timings_ms"]["total"] > 0


@pytest.mark.parametrize(
    ("body", "headers"), [({"stream": True}, {}), ({}, {"accept": "text/event-stream"})]
)
def test_the_stream_tells_the_same_answer_piece_by_piece(
    reader: TestClient, body: Any, headers: Any
) -> None:
    events = events_of(reader.post("/v1/answers", json={**LEAVE, **body}, headers=headers))
    names = [name for name, _ in events]
    assert names[0] == "retrieved"
    assert names[-1] == "done"
    assert set(names) == {"retrieved", "text", "citation", "done"}
    whole = events[-1][1]
    assert "".join(data["text"] for name, data in events if name == "text") == whole["text"]
    assert [data for name, data in events if name == "citation"] == whole["citations"]
    assert events[0][1]["passages"] == whole["passages"]


def test_what_fails_before_the_first_event_has_its_status(client: TestClient) -> None:
    body = {**LEAVE, "collection": "missing", "stream": True}
    response = client.post("/v1/answers", json=body)
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/json"


@pytest.fixture
def failing(fast_settings: Any, open_client: Any, add_text: Any) -> TestClient:
    """An engine that fails after two words."""
    generation = {"engine": "echo", "engine_options": {"fail_after": 2}}
    client: TestClient = open_client(fast_settings(generation=generation))
    client.post("/v1/vector_stores", json={"name": "handbook"})
    add_text(client, "handbook", "leave.txt", "Employees have 27 days of leave.")
    return client


def test_an_engine_that_fails_is_a_502_and_counted(failing: TestClient) -> None:
    response = failing.post("/v1/answers", json=LEAVE)
    assert response.status_code == 502
    assert response.json()["error"]["code"] == "engine_failed"
    metrics = failing.get("/metrics").text
    assert 'ragstone_answers_total{engine="echo",outcome="failed"} 1.0' in metrics


def test_an_engine_that_fails_midway_ends_the_stream_with_an_error(failing: TestClient) -> None:
    events = events_of(failing.post("/v1/answers", json={**LEAVE, "stream": True}))
    assert [name for name, _ in events] == ["retrieved", "text", "text", "error"]
    assert events[-1][1]["error"]["code"] == "engine_failed"


def test_a_filter_restricts_what_is_read(reader: TestClient) -> None:
    chosen = {"type": "eq", "key": "topic", "value": "travel"}
    answer = reader.post("/v1/answers", json={**LEAVE, "filter": chosen}).json()
    assert {passage["metadata"]["topic"] for passage in answer["passages"]} == {"travel"}
    body = {"query": "days of leave", "collection": "handbook", "filter": chosen}
    found = reader.post("/v1/search", json=body).json()
    assert {passage["metadata"]["filename"] for passage in found["passages"]} == {"travel.txt"}


@pytest.mark.parametrize("mode", ["hybrid", "dense", "lexical"])
def test_search_finds_the_passage_with_a_score_between_0_and_1(
    reader: TestClient, mode: str
) -> None:
    body = {"query": "days of leave", "collection": "handbook", "mode": mode, "limit": 1}
    found = reader.post("/v1/search", json=body).json()
    assert [passage["metadata"]["filename"] for passage in found["passages"]] == ["leave.txt"]
    assert 0 < found["passages"][0]["score"] <= 1


def test_a_write_is_found_by_a_search_that_names_its_sequence(
    client: TestClient, handbook: str, add_text: Any
) -> None:
    file_id = add_text(client, handbook, "parking.txt", "Parking costs 40 euros a month.")
    shown = client.get(f"/v1/vector_stores/{handbook}/files/{file_id}")
    sequence = int(shown.headers["x-ragstone-sequence"])
    assert sequence > 0
    body = {"query": "parking costs", "collection": handbook, "min_sequence": sequence}
    first = client.post("/v1/search", json=body).json()["passages"][0]
    assert first["document_id"] == file_id
    answer = client.post("/v1/answers", json={**LEAVE, "min_sequence": sequence})
    assert answer.status_code == 200


def test_a_sequence_that_was_never_written_is_refused_at_once(reader: TestClient) -> None:
    for path, body in (
        ("/v1/search", {"query": "x", "collection": "handbook"}),
        ("/v1/answers", LEAVE),
        ("/v1/vector_stores/handbook/search", {"query": "x"}),
    ):
        response = reader.post(path, json={**body, "min_sequence": 10**9})
        assert response.status_code == 400
        assert response.json()["error"]["param"] == "min_sequence"


def test_questions_past_those_that_may_wait_are_refused_early(
    fast_settings: Any, open_client: Any, add_text: Any
) -> None:
    generation = {"engine": "echo", "engine_options": {"delay_seconds": 0.2}}
    server = {"max_concurrent_requests": 1}
    client = open_client(fast_settings(generation=generation, server=server))
    client.post("/v1/vector_stores", json={"name": "handbook"})
    add_text(client, "handbook", "leave.txt", "Employees have 27 days of leave.")
    responses = []

    def ask() -> None:
        responses.append(client.post("/v1/answers", json=LEAVE))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    refused = [response for response in responses if response.status_code == 429]
    # One runs and four wait; a ninth of a second later a place may be free again.
    assert len(refused) >= 1
    assert {response.status_code for response in responses} == {200, 429}
    assert {response.headers["retry-after"] for response in refused} == {"1"}
    assert {response.json()["error"]["type"] for response in refused} == {"rate_limit_error"}
    assert client.app.state.admission.running == 0
    assert client.app.state.admission.waiting == 0


def test_exactly_as_many_run_and_wait_as_are_admitted() -> None:
    async def scenario() -> list[int]:
        admission = Admission(2)
        leave = asyncio.Event()

        async def question() -> str:
            try:
                async with admission.admit():
                    await leave.wait()
            except HTTPException as error:
                return str(error.status_code)
            return "done"

        tasks = [asyncio.create_task(question()) for _ in range(12)]
        await asyncio.sleep(0)
        counts = [admission.running, admission.waiting]
        tasks[5].cancel()  # one that waits goes away: its place in the queue is free again
        await asyncio.gather(tasks[5], return_exceptions=True)
        late = asyncio.create_task(question())
        await asyncio.sleep(0)
        counts.append(admission.waiting)
        leave.set()
        ended = await asyncio.gather(*tasks, late, return_exceptions=True)
        counts.append(sum(result == "429" for result in ended))
        counts.append(sum(result == "done" for result in ended))
        return [*counts, admission.running, admission.waiting]

    assert asyncio.run(scenario()) == [2, 8, 8, 2, 10, 0, 0]

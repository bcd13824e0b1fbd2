"""Answers over documents keep the deadline of whoever asks, and tell it to the model's server."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

import model_server
from infra.errors import EngineTimedOut
from model_server import Misbehaving
from relayed import run, until
from service.deadlines import NEVER, Deadline
from service.gateway import outgoing
from service.gateway.opening import answer_seconds
from service.limits import Admission

QUESTION = "How many days of leave do employees have?"
CHAT = {"model": "rag/handbook", "messages": [{"role": "user", "content": QUESTION}]}
ASKED = [
    ("/v1/answers", {"question": QUESTION, "collection": "handbook"}),
    ("/v1/chat/completions", CHAT),
    ("/v1/chat/completions", {**CHAT, "stream": True}),
    ("/v1/responses", {"model": "rag/handbook", "input": QUESTION}),
]
HEADER = "x-ragstone-timeout-seconds"


@pytest.fixture(scope="module")
def model() -> Iterator[Misbehaving]:
    with model_server.serving() as server:
        yield server


@pytest.fixture
def client(
    fast_settings: Any, open_client: Callable[..., TestClient], add_text: Any, model: Misbehaving
) -> TestClient:
    model.asked.clear()
    model.behaviour = model_server.well
    model.cut_off = 0
    gateway = {
        "upstreams": {"here": {"urls": [model.url]}},
        "routes": {"writer": {"targets": [{"upstream": "here"}], "retries": 0, "cache": False}},
    }
    opened = open_client(fast_settings(gateway=gateway, generation={"model": "writer"}))
    opened.post("/v1/vector_stores", json={"name": "handbook"})
    add_text(opened, "handbook", "leave.txt", "Employees have 27 days of leave each year.")
    return opened


def test_the_model_s_server_is_told_what_is_left(client: TestClient, model: Misbehaving) -> None:
    for path, body in ASKED:
        assert client.post(path, json=body, headers={HEADER: "50"}).status_code == 200
        assert 0 < float(model.asked[-1].headers[HEADER]) <= 50, path
        assert client.post(path, json=body).status_code == 200
        assert 50 < float(model.asked[-1].headers[HEADER]) <= 300, "the route's own"


def test_an_answer_that_is_not_there_in_time_is_given_up(
    client: TestClient, model: Misbehaving
) -> None:
    model.behaviour = model_server.hang
    for path, body in ASKED:
        late = client.post(path, json=body, headers={HEADER: "0.2"})
        assert late.status_code == 504, (path, late.text)
        assert late.json()["error"]["code"] == "engine_timeout"
        run(until(lambda: model.running == 0))


def test_a_time_that_is_none_is_refused(client: TestClient) -> None:
    searched = {"query": QUESTION, "collection": "handbook"}
    embedded = {"model": "local/embedder", "input": "rain"}
    for path, body in [*ASKED, ("/v1/search", searched), ("/v1/embeddings", embedded)]:
        for given in ("soon", "0", "nan"):
            refused = client.post(path, json=body, headers={HEADER: given})
            assert refused.status_code == 400, (path, refused.text)
            assert HEADER in refused.json()["error"]["message"]
        assert client.post(path, json=body, headers={HEADER: "inf"}).status_code == 200


def test_the_little_that_is_left_is_never_told_as_a_time_that_is_none() -> None:
    for seconds in (-1.0, 0.0, 0.0004, 5.0):
        told = outgoing.time_left(seconds)
        assert answer_seconds(told[HEADER], 300.0) == max(seconds, 0.001)
    assert outgoing.time_left(None) == {}


def test_what_was_begun_is_told_until_then_and_its_reader_is_not_cut_off() -> None:
    closed: list[bool] = []

    async def numbers() -> AsyncGenerator[int, None]:
        try:
            for number in range(2):
                yield number
            await asyncio.sleep(math.inf)
        finally:
            closed.append(True)

    async def read() -> None:
        events = Deadline.after(0.01).bound(numbers())
        assert await anext(events) == 0
        await asyncio.sleep(0.02)  # the reader's own time
        with pytest.raises(EngineTimedOut):
            _ = [number async for number in events]
        assert closed == [True]
        assert [number async for number in NEVER.bound(_one())] == [1]

    run(read())


async def _one() -> AsyncGenerator[int, None]:
    yield 1


def test_a_place_is_not_waited_for_beyond_it() -> None:
    async def wait() -> None:
        admission = Admission(1)
        async with admission.admit():
            with pytest.raises(EngineTimedOut):
                async with admission.admit(Deadline.after(0.01)):
                    pass
            assert (admission.running, admission.waiting) == (1, 0)
        async with admission.admit(Deadline.after(50)):
            assert admission.running == 1

    run(wait())

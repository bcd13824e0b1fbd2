"""Predictions that leave the server's protocol before the application are answered the same."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from behind_sockets import Served, serving
from classical_models import classifier, put
from monitoring.interactions import Query
from row_requests import KINDS, USUAL, alike, answers, outputs, request, tensors
from service.callers import Limits
from service.keys import Opens
from service.wiring import Components
from waiting import until


@pytest.mark.parametrize(
    "path", ["churn", "grade", "price", "churn/versions/1", "grade/versions/v1"]
)
def test_the_next_request_of_a_connection_is_answered_as_the_first(
    served: Served, path: str
) -> None:
    data = request({"inputs": tensors()}, path=f"/v2/models/{path}/infer")
    told, number = answers(served, data, data, data)
    assert number == 2
    assert b" 200 " in told[0]
    assert alike(told[1]) == alike(told[0])
    assert alike(told[2]) == alike(told[0])


ODD: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, 0, 3, 2**53 + 1, -1.5, 1e308, "", "pro", "gold", "\0", "\ud800", [], {}, [1, 2]]
)


@settings(max_examples=60)
@given(
    st.sampled_from(range(len(KINDS))),
    st.sampled_from(["name", "datatype", "shape", "data", "value", "parameters", "more"]),
    st.one_of(ODD, st.sampled_from(["FP32", "INT32", "age", "plan", [1], [1.0], [True, 1]])),
)
def test_an_odd_body_is_answered_as_on_a_new_connection(
    served: Served, at: int, part: str, odd: Any
) -> None:
    inputs = tensors()
    body: dict[str, Any] = {"inputs": inputs}
    if part == "more":
        body[str(odd)] = odd
    elif part == "value":
        inputs[at]["data"] = [odd]
    else:
        inputs[at][part] = odd
    data = request(body)
    (first, second), _ = answers(served, data, data)
    assert alike(second) == alike(first)


@pytest.mark.parametrize(
    "data",
    [
        request(b"{"),
        request(b"[]"),
        request(b'{"inputs": []}'),
        request({"inputs": tensors(), "id": "mine"}),
        request({"inputs": tensors(age=200.0)}),
        request({"inputs": tensors()}, path="/v2/models/nobody/infer"),
        request({"inputs": tensors()}, path="/v2/models/churn/infer?x=1"),
        request({"inputs": tensors()}, headers=("X-Request-Id: mine",)),
        request({"inputs": tensors()}, headers=("Content-Type: text/plain",)),
        request({"inputs": tensors()}, headers=("Inference-Header-Content-Length: 10",)),
        request({"inputs": tensors()}, headers=("X-Ragstone-Timeout: never",)),
        request({"inputs": tensors()}, headers=("Expect: 100-continue",)),
        request({"inputs": tensors()}, headers=("Origin: http://evil.example",)),
        request({"inputs": tensors()}, headers=("Content-Encoding: gzip",)),
        USUAL.replace(b"Host: 127.0.0.1", b"Host: evil.example"),
        USUAL.replace(b"POST", b"PUT"),
    ],
)
def test_what_is_not_as_most_are_goes_the_long_way(served: Served, data: bytes) -> None:
    (first, second), number = answers(served, data, data)
    assert number == 0
    assert alike(second) == alike(first)


def test_a_body_beyond_the_limit_is_refused_each_time(
    tmp_path: Path, parts_in: Callable[..., Components]
) -> None:
    parts = parts_in(tmp_path, server={"max_body_bytes": 200})
    put(parts.artifacts, classifier(), tmp_path / "0")
    with serving(parts) as served:
        served.load("churn")
        told, number = answers(served, USUAL, USUAL)
        assert number == 0
        assert all(b" 413 " in each for each in told)


def test_a_connection_that_is_to_be_closed_is_closed(served: Served) -> None:
    last = request({"inputs": tensors()}, headers=("Connection: close",))
    with served.connected() as client:
        assert client.ask(USUAL) != b""
        assert client.ask(USUAL) != b""
        assert b"connection: close" in client.ask(last)
        assert client.connection.recv(10) == b""


def test_requests_in_pieces_and_one_behind_another_are_answered_in_order(served: Served) -> None:
    grade = request({"inputs": tensors()}, path="/v2/models/grade/infer")
    chunked = USUAL.replace(b"Content-Length", b"Transfer-Encoding: chunked\r\nX-Length")
    head, _, body = chunked.partition(b"\r\n\r\n")
    chunked = head + b"\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    sent = [USUAL, grade, USUAL, USUAL, grade, chunked, grade, USUAL, grade]
    told, number = answers(served, *sent)
    assert number > 0
    with served.connected() as client:
        client.ask(USUAL)
        client.ask(grade)
        whole = b"".join(sent)
        for at in range(0, len(whole), 333):
            client.connection.sendall(whole[at : at + 333])
        assert [alike(client.read()) for _ in sent] == [alike(each) for each in told]
        client.connection.sendall(whole)
        assert [alike(client.read()) for _ in sent] == [alike(each) for each in told]


def test_a_head_that_begins_inside_another_is_no_request(served: Served) -> None:
    """What the parser has begun to read, it reads to its end."""
    with served.connected() as client:
        client.ask(USUAL)
        before = served.express.answered
        begun = b"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n"
        client.connection.sendall(USUAL + begun % len(USUAL))
        assert b" 200 " in client.read()
        assert b" 415 " in client.ask(USUAL)
    assert served.express.answered == before


def test_requests_are_counted_logged_and_recorded_as_on_the_long_way(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    components = served.components
    metrics = components.metrics
    series = [
        'ragstone_prediction_requests_total{model="churn",outcome="answered"}',
        'ragstone_prediction_rows_total{model="churn",version="1"}',
        'ragstone_prediction_duration_seconds_count{model="churn"}',
        'ragstone_prediction_duration_seconds_bucket{le="+Inf",model="churn"}',
        'ragstone_http_request_duration_seconds_count{route="/v2/models/{model_name}/infer"}',
        'ragstone_http_requests_total{method="POST",route="/v2/models/{model_name}/infer",'
        'status="200"}',
    ]

    def counts() -> list[float]:
        lines = dict(
            line.rsplit(" ", 1) for line in metrics.render().decode().splitlines() if line[0] != "#"
        )
        return [float(lines.get(name, 0)) for name in series]

    components.interactions.flush()
    since = datetime.now(UTC)
    before = counts()
    with caplog.at_level(logging.INFO, "service.exchange"):
        told, number = answers(served, USUAL, USUAL, USUAL)
        until(lambda: len(caplog.records) >= 3)
    assert number == 2
    until(lambda: counts() == [each + 3 for each in before])
    ids = [re.search(rb"x-request-id: (\w+)", each)[1].decode() for each in told]  # type: ignore[index]
    lines = [each for each in caplog.records if each.name == "service.exchange"]
    assert [each.getMessage().partition(" in ")[0] for each in lines] == [
        "POST /v2/models/{model_name}/infer 200"
    ] * 3
    assert [each.request_id for each in lines[1:]] == ids[1:]  # type: ignore[attr-defined]
    components.interactions.flush()
    kept = {each.request_id: each for each in components.interactions.find(Query(since=since))}
    assert kept.keys() == {*ids}
    long, short = kept[ids[0]], kept[ids[1]]
    prediction = json.loads(told[1].partition(b"\r\n\r\n")[2])["parameters"]["prediction_id"]
    assert short.id == f"{prediction}-0"
    assert short.content == long.content
    for name in ("kind", "model", "outcome", "status", "tenant", "key_id", "upstream", "tag"):
        assert getattr(short, name) == getattr(long, name)


def test_requests_of_one_turn_share_a_batch(served: Served) -> None:
    def batches() -> tuple[float, float]:
        told = served.components.metrics.render().decode()
        found = [
            re.search(rf'ragstone_prediction_batch_rows_{each}{{model="churn"}} (\S+)', told)
            for each in ("count", "sum")
        ]
        return float(found[0][1]), float(found[1][1])  # type: ignore[index]

    with ExitStack() as stack:
        clients = [stack.enter_context(served.connected()) for _ in range(5)]
        first = [outputs(client.ask(USUAL)) for client in clients]
        number, rows = batches()
        served.send_together(USUAL)
        for client, (label, probabilities) in zip(clients, first, strict=True):
            told = outputs(client.read())
            assert told[0] == label
            # A graph rounds several rows otherwise than one.
            assert told[1]["data"] == pytest.approx(probabilities["data"], abs=1e-6)
        assert batches() == (number + 1, rows + 5)


def test_a_model_that_answers_column_by_column_is_told_as_any_other(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(served.connected()) for _ in range(3)]
        for client in clients:
            client.ask(USUAL)
        (hosted,) = [each for each in served.components.models._shelf if each.name == "churn"]
        run, before = hosted.batcher._run, served.express.answered
        monkeypatch.setattr(hosted.batcher, "_run", lambda *given: np.asfortranarray(run(*given)))
        served.send_together(USUAL)
        told = [outputs(client.read()) for client in clients]
        assert served.express.answered == before + 3
        assert len({str(each) for each in told}) == 1


def test_a_connection_in_use_outlives_the_time_for_idle_ones(served: Served) -> None:
    with served.connected() as client:
        client.ask(USUAL)
        client.ask(USUAL)
        (connection,) = served.connections
        served.on_loop(connection.timeout_keep_alive_handler)  # as of the first answer
        before = served.express.answered
        assert b" 200 " in client.ask(USUAL)
        assert served.express.answered == before + 1


def test_a_server_that_stops_answers_what_it_took(served: Served) -> None:
    with served.connected() as client:
        client.ask(USUAL)
        (connection,) = served.connections

        def stop_at_once() -> None:
            connection.data_received(USUAL)
            assert connection.is_waiting
            connection.shutdown()

        served.on_loop(stop_at_once)
        answer = client.read()
        assert b" 200 " in answer
        assert b"connection: close" in answer
        assert client.connection.recv(10) == b""


def test_a_client_that_left_keeps_nobody_from_an_answer(served: Served) -> None:
    with served.connected() as leaving, served.connected() as staying:
        leaving.ask(USUAL)
        staying.ask(USUAL)
        leaving.connection.sendall(USUAL)
        leaving.connection.close()
        assert b" 200 " in staying.ask(USUAL)


def test_keys_and_limits_hold_for_every_request(
    tmp_path: Path, parts_in: Callable[..., Components]
) -> None:
    parts = parts_in(tmp_path, server={"authentication": "on"})
    limits = Limits(requests_per_minute=4)
    _, few = parts.keys.create("few", opens=Opens(limits=limits))
    _, five = parts.keys.create("five", opens=Opens(limits=Limits(requests_per_minute=5)))
    made, key = parts.keys.create("revoked")
    _, other = parts.keys.create("other", opens=Opens(models=("model/other",)))
    _, admin = parts.keys.create("admin")
    put(parts.artifacts, classifier(), tmp_path / "0")

    def by(key: str) -> bytes:
        return request({"inputs": tensors()}, headers=(f"Authorization: Bearer {key}",))

    with serving(parts) as served:
        served.load("churn", headers=f"Authorization: Bearer {admin}\r\n")
        told, number = answers(served, *[by(few)] * 6)
        assert number == 3
        assert [each.split(b" ", 2)[1] for each in told] == [b"200"] * 4 + [b"429"] * 2
        left = [re.search(rb"x-ratelimit-remaining-requests: (\d+)", each) for each in told]
        assert [each and each[1] for each in left[:4]] == [b"3", b"2", b"1", b"0"]
        with ExitStack() as stack:
            clients = [stack.enter_context(served.connected()) for _ in range(3)]
            assert all(b" 200 " in client.ask(by(five)) for client in clients)
            served.send_together(by(five))
            codes = sorted(client.read().split(b" ", 2)[1] for client in clients)
            assert codes == [b"200", b"200", b"429"]
        told, number = answers(served, by(other), by(other))
        assert number == 0
        assert all(b" 404 " in each for each in told)
        with served.connected() as client:
            assert b" 200 " in client.ask(by(key))
            assert b" 200 " in client.ask(by(key))
            parts.keys.revoke(made.name)
            parts.keyring.refresh()
            assert b" 401 " in client.ask(by(key))

"""What the parser or the application would refuse, leaves it no earlier than they refuse it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pytest

from behind_sockets import Client, Served, serving
from classical_models import classifier, put
from monitoring.interactions import Query
from row_requests import USUAL, alike, answers, outputs, request, tensors
from service.keys import Opens
from service.prediction.protocol import MOST_HEADS
from service.wiring import Components
from waiting import until

GRADE = request({"inputs": tensors()}, path="/v2/models/grade/infer")
HEAD, BODY = USUAL.split(b"\r\n\r\n", 1)
LENGTH = b"Content-Length: %d" % len(BODY)


def other(old: bytes, new: bytes) -> bytes:
    assert old in HEAD
    return HEAD.replace(old, new) + b"\r\n\r\n" + BODY


@pytest.mark.parametrize(
    "data",
    [
        other(LENGTH, LENGTH + b"\r\n" + LENGTH),
        other(LENGTH, LENGTH + b"\r\nContent-Length: 1"),
        other(LENGTH, LENGTH + b"\r\nTransfer-Encoding: chunked"),
        other(LENGTH, LENGTH.replace(b":", b" :")),
        other(LENGTH, LENGTH.replace(b": ", b": +")),
        other(LENGTH, LENGTH + b", 1"),
        other(LENGTH, b"User-Agent: a\r\n b\r\n" + LENGTH),
        other(LENGTH, b"User-Agent: a\x00b\r\n" + LENGTH),
        other(LENGTH, b"Host: 127.0.0.1\r\n" + LENGTH),
        other(b"Host: 127.0.0.1\r\n", b""),
        other(b"HTTP/1.1", b"HTTP/1.2"),
        HEAD.replace(b"\r\n", b"\n") + b"\n\n" + BODY,
        HEAD.replace(b"\r\n", b"\r") + b"\r\r" + BODY,
        HEAD + b"\r\n\n" + BODY,
        HEAD + b"\n\r\n" + BODY,
        b"X" + USUAL,
    ],
)
def test_a_head_that_the_parser_refuses_is_refused_behind_others_like_it(
    served: Served, data: bytes
) -> None:
    before = served.express.answered
    with served.connected() as client:
        assert b" 200 " in client.ask(USUAL)
        assert b" 200 " in client.ask(USUAL)
        assert client.ask(data).startswith(b"HTTP/1.1 400 ")
        assert client.connection.recv(10) == b""
    assert served.express.answered == before + 1


@pytest.mark.parametrize(
    "data",
    [
        other(b"Host", b"HOST"),
        other(b"Content-Length", b"content-length"),
        other(b"Host: ", b"Host:\t "),
        other(LENGTH, LENGTH + b"\r\nUser-Agent: POST /v2/models/churn/infer HTTP/1.1"),
    ],
)
def test_heads_in_other_words_are_answered_alike(served: Served, data: bytes) -> None:
    (first, second), number = answers(served, data, data)
    assert number == 1
    assert alike(first) == alike(second) == alike(answers(served, USUAL)[0][0])


def test_a_request_inside_a_body_is_none(served: Served) -> None:
    """Also where a body of the same length was answered before, and ends where a head would."""
    inside = request(b"\r\n\r\n" + USUAL)
    usual = request(BODY.ljust(len(USUAL) + 4))
    assert inside.partition(b"\r\n\r\n")[0] == usual.partition(b"\r\n\r\n")[0]
    told, number = answers(served, usual, usual, inside, inside, GRADE)
    assert number == 1
    assert [each.split(b" ", 2)[1] for each in told] == [b"200", b"200", b"400", b"400", b"200"]
    assert alike(told[4]) == alike(answers(served, GRADE)[0][0])


def test_of_several_requests_in_one_piece_nothing_is_remembered(served: Served) -> None:
    before = served.express.answered
    with served.connected() as client:
        for _ in range(2):
            client.connection.sendall(USUAL + GRADE + USUAL)
            found = [alike(client.read()) for _ in range(3)]
            assert found[0] == found[2] != found[1]
        assert b" 200 " in client.ask(USUAL)
    assert served.express.answered == before


def test_a_request_of_an_older_protocol_is_its_last(served: Served) -> None:
    old = other(b"HTTP/1.1", b"HTTP/1.0")
    with served.connected() as client:
        client.ask(USUAL)
        assert b"connection: close" in client.ask(old.replace(LENGTH, b"Accept: */*\r\n" + LENGTH))
        assert client.connection.recv(10) == b""


def agents(number: int, *, letters: int = 1) -> bytes:
    return request({"inputs": tensors()}, headers=(f"User-Agent: {number:0{letters}}",))


def test_few_and_short_heads_are_remembered_while_their_connection_lasts(served: Served) -> None:
    with served.connected() as client:
        for number in range(MOST_HEADS + 3):
            assert b" 200 " in client.ask(agents(number))
        (connection,) = served.connections
        heads = connection._heads
        assert 0 < len(heads) <= MOST_HEADS
        kept = len(heads)
        for _ in range(2):
            assert b" 200 " in client.ask(agents(1, letters=5_000))
        assert len(heads) == kept
    until(lambda: not heads)


def test_a_connection_whose_time_ends_as_a_request_comes_answers_it(served: Served) -> None:
    with served.connected() as client:
        client.ask(USUAL)
        (connection,) = served.connections

        def come_last() -> None:
            connection.data_received(USUAL)
            assert connection.is_waiting
            connection.timeout_keep_alive_handler()

        served.on_loop(come_last)
        assert b" 200 " in client.read()
        assert b" 200 " in client.ask(USUAL)


def test_blank_lines_between_requests_do_not_end_a_connection_in_use(served: Served) -> None:
    with served.connected() as client:
        client.ask(USUAL)
        (connection,) = served.connections
        client.connection.sendall(b"\r\n")
        until(lambda: connection._head_bytes > 0)
        assert b" 200 " in client.ask(USUAL)
        connection._waits_since -= 60
        served.on_loop(connection._check_patience)
        assert b" 200 " in client.ask(USUAL)


def test_who_does_not_read_is_answered_no_more_until_it_does(served: Served) -> None:
    with served.connected() as client:
        client.ask(USUAL)
        (connection,) = served.connections
        served.on_loop(connection.pause_writing)  # as a transport does that holds too much
        before = served.express.answered
        client.connection.sendall(USUAL)
        until(lambda: connection.cycle.more_body is False and not connection.cycle.response_started)
        client.connection.sendall(GRADE)
        until(lambda: connection.flow.read_paused)
        client.connection.sendall(USUAL)
        served.on_loop(connection.resume_writing)
        found = [alike(client.read()) for _ in range(3)]
        assert found[0] == found[2] != found[1]
        assert served.express.answered <= before + 1


def test_a_batch_that_fails_as_nobody_foresaw_keeps_no_other_from_an_answer(
    served: Served,
) -> None:
    def fail(_columns: object) -> None:
        raise ZeroDivisionError

    hosted = served.components.models.at_hand("churn", None)
    assert hosted is not None
    with ExitStack() as stack:
        clients = [stack.enter_context(served.connected()) for _ in range(2)]
        for client, data in zip(clients, (USUAL, GRADE), strict=True):
            client.ask(data)
        run = hosted.batcher._run
        hosted.batcher._run = fail  # type: ignore[assignment]
        try:
            # A turn of the loop for both, in this order.
            by_path = {each.scope["path"]: each for each in served.connections}

            def arrive() -> None:
                for name, data in (("churn", USUAL), ("grade", GRADE)):
                    by_path[f"/v2/models/{name}/infer"].data_received(data)

            served.on_loop(arrive)
            assert b" 500 " in clients[0].read()
            assert b" 200 " in clients[1].read()
        finally:
            hosted.batcher._run = run


def test_each_series_counts_a_request_as_on_the_long_way(served: Served) -> None:
    """All series there are, but for seconds, and for buckets, which depend on them."""

    def counts() -> dict[str, float]:
        lines = served.components.metrics.render().decode().splitlines()
        told = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {
            name: float(value)
            for name, value in told.items()
            if not any(each in name for each in ("_seconds_sum", "_bucket", "process_", "python_"))
        }

    def requests(told: dict[str, float]) -> float:
        return sum(told[name] for name in told if name.startswith("ragstone_http_requests_total"))

    def counted(client: Client) -> dict[str, float]:
        before = counts()
        client.ask(USUAL)
        until(lambda: requests(counts()) == requests(before) + 1)  # which follows the answer
        served.on_loop(lambda: None)  # what was counted in the same turn is there as well
        served.components.interactions.flush()
        return {name: each - before.get(name, 0) for name, each in counts().items()}

    with served.connected() as client:
        counted(client)  # others may be under way before, and not after it
        short = counted(client)
        (connection,) = served.connections
        connection._heads.clear()
        taken = served.express.answered
        long = counted(client)
        assert served.express.answered == taken
    assert short == long
    assert sum(short.values()) > 0


def by(key: str, *, name: str = "churn") -> bytes:
    path = f"/v2/models/{name}/infer"
    return request({"inputs": tensors()}, path=path, headers=(f"Authorization: Bearer {key}",))


def test_what_a_key_opens_is_asked_anew_for_every_request(
    tmp_path: Path, parts_in: Callable[..., Components]
) -> None:
    parts = parts_in(tmp_path, server={"authentication": "on"})
    _, admin = parts.keys.create("admin")
    _, aging = parts.keys.create("aging", expires_in=timedelta(days=1))
    _, narrowed = parts.keys.create("narrowed")
    _, sent_home = parts.keys.create("sent-home")
    _, one = parts.keys.create("one", opens=Opens(tenant="one"))
    _, two = parts.keys.create("two", opens=Opens(tenant="two"))
    put(parts.artifacts, classifier(), tmp_path / "0")
    put(parts.artifacts, classifier(), tmp_path / "1", name="grade")
    with serving(parts) as served, ExitStack() as stack:
        served.load("churn", "grade", headers=f"Authorization: Bearer {admin}\r\n")

        def known(key: str) -> Client:
            client: Client = stack.enter_context(served.connected())
            before = served.express.answered
            assert [b" 200 " in client.ask(by(key)) for _ in range(2)] == [True, True]
            assert served.express.answered == before + 1
            return client

        first, second = known(one), known(two)
        parts.interactions.flush()
        of_one, of_two = (
            len(parts.interactions.find(Query(tenant=each))) for each in ("one", "two")
        )
        assert (of_one, of_two) == (2, 2)

        client = known(narrowed)
        parts.keys.change("narrowed", {"models": ("model/grade",)})
        parts.keyring.refresh()
        assert b" 404 " in client.ask(by(narrowed))
        assert b" 200 " in client.ask(by(narrowed, name="grade"))

        client = known(sent_home)
        parts.keys.change("sent-home", {"scopes": ("read",)})
        parts.keyring.refresh()
        assert b" 403 " in client.ask(by(sent_home))

        client = known(aging)
        today = parts.keyring._clock
        parts.keyring._clock = lambda: today() + timedelta(days=2)
        assert b" 401 " in client.ask(by(aging))
        assert b" 200 " in first.ask(by(one))
        assert b" 200 " in second.ask(by(two))


def test_a_model_that_is_swapped_or_unloaded_between_requests_is_seen(
    tmp_path: Path, parts_in: Callable[..., Components]
) -> None:
    parts = parts_in(tmp_path)
    put(parts.artifacts, classifier(), tmp_path / "0")
    post = "POST /v2/repository/models/churn/%s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0"
    with serving(parts) as served:
        served.load("churn")
        with served.connected() as client:
            assert b'"model_version":"1"' in client.ask(USUAL)
            assert b'"model_version":"1"' in client.ask(USUAL)
            put(parts.artifacts, classifier(2), tmp_path / "1")
            served.load("churn")
            before = served.express.answered
            answer = client.ask(USUAL)
            assert served.express.answered == before + 1
            assert b'"model_version":"2"' in answer
            assert outputs(answer)[0]["name"] == "label"
            assert b" 200 " in client.ask(f"{post % 'unload'}\r\n\r\n".encode())
            assert b" 404 " in client.ask(USUAL)

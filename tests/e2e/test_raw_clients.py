"""Clients that do not speak HTTP well, over bare sockets: answered or closed, never a hang."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

HEADERS = b"Host: 127.0.0.1\r\nContent-Type: application/json\r\n"


def talk(server: Any, *pieces: bytes, ends: bool = True) -> bytes:
    """Send the pieces and return everything that comes back until the server closes.

    Whoever then `ends` sends no more, for which a server does not wait with what it has begun.
    """
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        received = b""
        # A server that has heard enough may answer and close while we still send.
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            for piece in pieces:
                connection.sendall(piece)
        if ends:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            while piece := connection.recv(65536):
                received += piece
        return received


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def post(body: bytes, *, length: int | None = None) -> bytes:
    declared = len(body) if length is None else length
    head = b"POST /v1/answers HTTP/1.1\r\n" + HEADERS + b"Connection: close\r\n"
    return head + f"Content-Length: {declared}\r\n\r\n".encode() + body


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (post(b"{"), 400),
        (post(b'{"question": "\xff\xfe"}'), 400),
        (post(b"", length=-1), 400),
        (post(b"{}", length=10**12), 413),
        (b"GET /health/live HTTP/1.1\r\n\r\n", 400),  # HTTP/1.1 without a host
        (b"GET /v1/models HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n", 403),
        (b"NONSENSE\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),  # TLS to a plain port
        (b"GET /%zz%ff HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n", 404),
        (b"GET /v1/files/%00 HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n", 400),
    ],
)
def test_what_is_not_a_good_request_gets_a_4xx(
    server: Any, request_bytes: bytes, status: int
) -> None:
    answer = talk(server, request_bytes)
    assert status_of(answer) == status, answer[:300]
    assert b"Traceback" not in answer
    error = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert error.get("error", error)["code"], "in OpenAI's shape, or a problem's"


@pytest.mark.parametrize("start", [b"GET /", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: "])
def test_a_huge_header_is_refused_or_cut_off(server: Any, start: bytes) -> None:
    answer = talk(server, start + b"a" * 2_000_000)
    assert answer == b"" or status_of(answer) == 400
    assert len(answer) < 1000


def test_a_flood_of_small_headers_is_refused(server: Any) -> None:
    few, many = (
        b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
        + b"a:\r\n" * number
        + b"\r\n"
        for number in (200, 10_000)
    )
    assert status_of(talk(server, few, ends=False)) == 200
    refused = talk(server, many, ends=False)
    assert status_of(refused) == 400
    assert b"send fewer" in refused


CHUNKED = (
    b"POST /v1/answers HTTP/1.1\r\nConnection: close\r\n"
    + HEADERS
    + b"Transfer-Encoding: chunked\r\n\r\n"
)


def test_headers_behind_a_body_are_bounded_too(server: Any) -> None:
    megabyte = (b"a: " + b"a" * 1019 + b"\r\n") * 1024
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(CHUNKED + b"2\r\n{}\r\n0\r\n")
        with pytest.raises(ConnectionError):  # closed while we send
            connection.sendall(megabyte * 64)


def test_headers_behind_a_body_are_none_of_the_request(server: Any) -> None:
    asked = CHUNKED + b"2\r\n{}\r\n0\r\nX-Request-Id: behind\r\n\r\n"
    answer = talk(server, asked, ends=False)
    assert status_of(answer) == 400, answer[:300]
    assert b"missing_required_parameter" in answer
    assert b"behind" not in answer


def test_a_body_of_tiny_chunks_is_read(server: Any) -> None:
    body = b'{"question": "%s", "collection": "missing"}' % (b"a" * 3000)
    chunks = b"".join(b"1;%b\r\n%c\r\n" % (b"x" * 30, byte) for byte in body)
    assert len(chunks) > 2**16  # more than headers may be
    answer = talk(server, CHUNKED, chunks, b"0\r\n\r\n", ends=False)
    assert status_of(answer) == 404, answer[:300]


def test_a_truncated_body_is_no_request(server: Any) -> None:
    before = httpx.get(f"{server.url}/v1/vector_stores").json()
    answer = talk(server, post(b'{"question": "a", "coll', length=1000))
    assert answer == b"" or status_of(answer) == 400
    assert httpx.get(f"{server.url}/v1/vector_stores").json() == before


def test_an_upload_that_breaks_off_leaves_nothing(server: Any) -> None:
    files = httpx.get(f"{server.url}/v1/files").json()["data"]
    head = b"POST /v1/files HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    head += b"Content-Type: multipart/form-data; boundary=xx\r\nContent-Length: 1000000\r\n\r\n"
    part = b'--xx\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    talk(server, head, part + b"a" * 100_000)
    assert httpx.get(f"{server.url}/v1/files").json()["data"] == files


def test_an_endless_body_is_cut_off_at_the_limit(server: Any) -> None:
    piece = b"10000\r\n" + b" " * 65536 + b"\r\n"
    answer = talk(server, CHUNKED, *[piece] * 40)
    assert status_of(answer) == 413, answer[:300]


def test_headers_that_never_end_are_not_waited_for(start_server: Callable[..., Any]) -> None:
    server = start_server()
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n")
        start = time.monotonic()
        assert connection.recv(1024) == b""
        assert 10 < time.monotonic() - start < 25
    assert httpx.get(f"{server.url}/health/live").status_code == 200


def test_a_client_that_leaves_midway_stops_the_engine(start_server: Callable[..., Any]) -> None:
    server = start_server(
        RAGSTONE_GENERATION__ENGINE="echo",
        RAGSTONE_GENERATION__ENGINE_OPTIONS='{"delay_seconds": 0.05}',
    )
    httpx.post(f"{server.url}/v1/vector_stores", json={"name": "x"})
    body = {"question": "word " * 400, "collection": "x", "stream": True}
    with httpx.stream("POST", f"{server.url}/v1/answers", json=body) as response:
        assert response.status_code == 200
        lines = response.iter_lines()
        assert next(lines) == "event: retrieved"
        assert running(server) == 1
    deadline = time.monotonic() + 5
    while running(server) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert running(server) == 0  # the whole answer would have taken 20 seconds


def test_an_answer_under_way_is_finished_when_asked_to_stop(
    start_server: Callable[..., Any],
) -> None:
    server = start_server(
        RAGSTONE_GENERATION__ENGINE="echo",
        RAGSTONE_GENERATION__ENGINE_OPTIONS='{"delay_seconds": 0.05}',
    )
    httpx.post(f"{server.url}/v1/vector_stores", json={"name": "x"})
    body = {"question": "word " * 20, "collection": "x", "stream": True}
    with httpx.stream("POST", f"{server.url}/v1/answers", json=body, timeout=30) as response:
        lines = response.iter_lines()
        next(lines)
        server.process.terminate()
        assert "event: done" in list(lines)
    assert server.stop() == 0


def running(server: Any) -> float:
    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    (line,) = [line for line in lines if line.startswith("ragstone_questions_running ")]
    return float(line.split(" ")[1])

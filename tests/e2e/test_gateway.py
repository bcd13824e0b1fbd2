"""The gateway as a process: callers that leave, routes that change, an end in good order."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

import model_server
import relayed
from infra.gateway_settings import Gateway
from model_server import Misbehaving
from waiting import until

ROUTES = """
[gateway.upstreams.one]
urls = ["{url}"]
max_running = {max_running}
[gateway.routes.small]
targets = [{{ upstream = "one", model = "tiny" }}, \
{{ upstream = "one", model = "new", weight = 0, tag = "canary" }}]
context_tokens = 1000
[gateway.routes.embed]
targets = [{{ upstream = "one" }}]
kind = "embeddings"
"""
PROMPT = "the-secret-of-the-tower"
BODY = {"model": "small", "messages": [{"role": "user", "content": PROMPT}]}
URL = "/v1/chat/completions"


def routes(backend: Misbehaving, *, max_running: int = 100) -> str:
    return ROUTES.format(url=backend.url, max_running=max_running)


@pytest.fixture(scope="module")
def backend() -> Iterator[Misbehaving]:
    with model_server.serving() as server:
        yield server


@pytest.fixture(autouse=True)
def _well(backend: Misbehaving) -> None:
    backend.behaviour = model_server.well
    backend.cut_off = 0
    backend.asked.clear()


@pytest.fixture(scope="module")
def gateway(
    backend: Misbehaving, start_in: Callable[[Path], Any], tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """A server with two places at the backend."""
    folder = tmp_path_factory.mktemp("gateway")
    (folder / "ragstone.toml").write_text(routes(backend, max_running=2), "utf-8")
    return start_in(folder)


def replica(server: Any) -> dict[str, Any]:
    (found,) = httpx.get(f"{server.url}/v1/gateway/replicas").json()["data"]
    return dict(found)


def raw(server: Any, **more: Any) -> socket.socket:
    """Send a request over a socket that the test may close at any moment."""
    body = json.dumps({**BODY, **more}).encode()
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    connection.sendall(
        f"POST {URL} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n".encode()
        + body
    )
    return connection


def test_openai_s_client_is_served(gateway: Any, backend: Misbehaving) -> None:
    client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0)
    assert [model.id for model in client.models.list()] == ["small", "embed"]
    assert client.models.retrieve("embed").id == "embed"
    messages = [{"role": "user", "content": PROMPT}]
    whole = client.chat.completions.create(model="small", messages=messages)  # type: ignore[arg-type]
    assert whole.choices[0].message.content == "I am tiny."
    assert whole._request_id
    chunks = list(
        client.chat.completions.create(model="small", messages=messages, stream=True)  # type: ignore[arg-type,call-overload]
    )
    assert "".join(c.choices[0].delta.content for c in chunks) == "tiny0 tiny1 tiny2 tiny3 tiny4 "
    assert client.completions.create(model="small", prompt="a").id == "c"
    with pytest.raises(openai.NotFoundError, match="did you mean 'small'"):
        client.chat.completions.create(model="smal", messages=messages)  # type: ignore[arg-type]
    with pytest.raises(openai.BadRequestError, match="temperature"):
        client.chat.completions.create(model="small", messages=messages, temperature=9)  # type: ignore[arg-type]
    assert PROMPT not in gateway.log.read_text("utf-8")


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        (URL, {**BODY, "model": "nothing"}, 404, "model_not_found"),
        (URL, {**BODY, "model": "embed"}, 400, "invalid_value"),
        ("/v1/embeddings", {"model": "small", "input": "a"}, 400, "invalid_value"),
        (URL, {**BODY, "max_tokens": 5000}, 400, "invalid_value"),
        (URL, {"model": "small"}, 400, "invalid_value"),
        (URL, {**BODY, "messages": "a"}, 400, "invalid_value"),
        ("/v1/completions", {"model": "rag/x", "prompt": "a"}, 404, "model_not_found"),
        (URL, {"model": 7}, 400, "invalid_value"),
        (URL, [], 400, None),
    ],
)
def test_what_cannot_be_is_an_error_of_openai_s_shape(
    gateway: Any, path: str, body: Any, status: int, code: str | None
) -> None:
    response = httpx.post(f"{gateway.url}{path}", json=body)
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert code is None or error["code"] == code
    assert response.headers["x-request-id"]


def deep(levels: int) -> bytes:
    nested = b"[" * levels + b"]" * levels
    return b'{"model": "small", "messages": [{"role": "user", "content": "a"}], "x": %b}' % nested


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (
            b'{"model": "small", "messages": [{"role": "user", "content": "\xff"}]}',
            "application/json",
            400,
        ),
        (
            b'{"model": "small", "messages": [{"role": "user", "content": "\\u0000"}]}',
            "application/json",
            400,
        ),
        (deep(200), "application/json", 400),
        (deep(100_000), "application/json", 400),
        (json.dumps(BODY).encode(), "text/plain", 415),
        (b'{"model": "small", "messages": "' + b"a" * 2**21 + b'"}', "application/json", 413),
    ],
)
def test_bodies_that_are_none_are_refused(
    gateway: Any, content: bytes, kind: str, status: int
) -> None:
    response = httpx.post(f"{gateway.url}{URL}", content=content, headers={"Content-Type": kind})
    assert response.status_code == status, response.text
    assert response.json()["error"]["message"]


def test_a_target_is_chosen_by_its_tag(gateway: Any, backend: Misbehaving) -> None:
    url = f"{gateway.url}{URL}"
    answered = httpx.post(url, json=BODY, headers={"x-ragstone-target": "canary"})
    assert answered.headers["x-ragstone-target"] == "canary"
    assert backend.asked[-1].body["model"] == "new"
    assert httpx.post(url, json=BODY).headers["x-ragstone-target"] == "live"
    refused = httpx.post(url, json=BODY, headers={"x-ragstone-target": "x"})
    assert refused.status_code == 400
    late = httpx.post(url, json=BODY, headers={"x-ragstone-timeout-seconds": "soon"})
    assert late.status_code == 400


def test_a_ragstone_behind_another_keeps_the_deadline_of_the_first_one_s_caller(
    gateway: Any, backend: Misbehaving
) -> None:
    front = Gateway.model_validate(
        {
            "upstreams": {"behind": {"urls": [gateway.url]}},
            "routes": {"m": {"targets": [{"upstream": "behind", "model": "small"}]}},
        }
    )

    async def ask() -> None:
        async with relayed.opened(front) as opened:
            await relayed.answer(opened.relay, relayed.call(seconds=50))

    relayed.run(ask())
    # Its own route would give 300 seconds.
    assert 0 < float(backend.asked[-1].headers["x-ragstone-timeout-seconds"]) <= 50


@pytest.mark.parametrize(
    ("phase", "behaviour", "more"),
    [
        ("prefill", model_server.hang, {"stream": True}),
        ("first token", model_server.hang_after_head, {"stream": True}),
        ("decode", model_server.hang_midway, {"stream": True}),
        ("whole", model_server.hang, {}),
    ],
)
def test_a_caller_that_leaves_stops_the_work_within_200_ms(
    gateway: Any, backend: Misbehaving, phase: str, behaviour: Any, more: dict[str, Any]
) -> None:
    backend.behaviour = behaviour
    connection = raw(gateway, **more)
    until(lambda: backend.running == 1)
    time.sleep(0.1)
    connection.close()
    assert until(lambda: backend.running == 0) < 0.2
    assert backend.cut_off == 1
    assert replica(gateway)["running"] == 0
    until(lambda: " 499 in " in gateway.log.read_text("utf-8"))


def test_a_caller_that_leaves_the_queue_is_not_served(gateway: Any, backend: Misbehaving) -> None:
    backend.behaviour = model_server.hang_midway
    busy = [raw(gateway, stream=True) for _ in range(2)]
    until(lambda: backend.running == 2)
    waiting = raw(gateway, stream=True)
    until(lambda: replica(gateway)["waiting"] == 1)
    waiting.close()
    until(lambda: replica(gateway)["waiting"] == 0)
    for connection in busy:
        connection.close()
    until(lambda: backend.running == 0)
    assert len(backend.asked) == 2


async def asked(session: httpx.AsyncClient, url: str, *, stream: bool) -> int | str:
    """Ask once; returns the status, or what went wrong."""
    try:
        response = await session.post(f"{url}{URL}", json={**BODY, "stream": stream})
    except httpx.HTTPError as error:
        return type(error).__name__
    is_whole = not stream or response.text.endswith("[DONE]\n\n")
    return response.status_code if is_whole else "cut"


async def load(url: str, *, clients: int, until_done: asyncio.Event) -> list[int | str]:
    """Ask until told to stop; returns what became of every request."""
    ended: list[int | str] = []

    async def client(session: httpx.AsyncClient, number: int) -> None:
        while not until_done.is_set():
            ended.append(await asked(session, url, stream=bool(number % 2)))

    async with httpx.AsyncClient(timeout=30) as session:
        await asyncio.gather(*(client(session, number) for number in range(clients)))
    return ended


def test_routes_change_under_load_without_a_failed_request(
    start_in: Callable[[Path], Any], backend: Misbehaving, tmp_path: Path
) -> None:
    backend.behaviour = model_server.paced(0.005)
    file = tmp_path / "ragstone.toml"
    file.write_text(routes(backend), "utf-8")
    server = start_in(tmp_path)

    async def change() -> list[int | str]:
        done = asyncio.Event()
        asking = asyncio.create_task(load(server.url, clients=6, until_done=done))
        async with httpx.AsyncClient(timeout=30) as admin:
            for number in range(10):
                file.write_text(routes(backend, max_running=50 + number), "utf-8")
                if number % 2:
                    server.process.send_signal(signal.SIGHUP)
                else:
                    answered = await admin.post(f"{server.url}/v1/gateway/reload")
                    assert answered.status_code == 200
                await asyncio.sleep(0.2)
            file.write_text(routes(backend).replace('upstream = "one"', 'upstream = "two"'))
            refused = await admin.post(f"{server.url}/v1/gateway/reload")
            assert refused.status_code == 409
            assert "upstream 'two'" in refused.json()["error"]["message"]
        done.set()
        return await asking

    ended = asyncio.run(change())
    assert len(ended) > 20
    assert set(ended) == {200}
    assert server.log.read_text("utf-8").count("routes reloaded") >= 10


def test_asked_to_stop_it_finishes_what_is_under_way(
    start_in: Callable[[Path], Any], backend: Misbehaving, tmp_path: Path
) -> None:
    backend.behaviour = model_server.paced(0.2)
    (tmp_path / "ragstone.toml").write_text(routes(backend, max_running=5), "utf-8")
    server = start_in(tmp_path)

    async def stop() -> list[int | str]:
        done = asyncio.Event()
        asking = asyncio.create_task(load(server.url, clients=10, until_done=done))
        await asyncio.to_thread(until, lambda: backend.running == 5)  # and five wait
        done.set()
        server.process.terminate()
        return await asking

    assert asyncio.run(stop()) == [200] * 10
    assert server.stop() == 0


def test_asked_to_stop_under_load_it_fails_no_request_that_it_takes(
    start_in: Callable[[Path], Any], backend: Misbehaving, tmp_path: Path
) -> None:
    backend.behaviour = model_server.paced(0.001)
    (tmp_path / "ragstone.toml").write_text(routes(backend), "utf-8")
    server = start_in(tmp_path)

    async def client(ended: list[int | str], *, stream: bool) -> None:
        """Ask over a connection that is kept, until there is no server any more."""
        async with httpx.AsyncClient(timeout=30) as session:
            while "ConnectError" not in ended:
                ended.append(await asked(session, server.url, stream=stream))

    async def stop() -> list[list[int | str]]:
        ended: list[list[int | str]] = [[] for _ in range(10)]
        clients = [client(each, stream=bool(at % 2)) for at, each in enumerate(ended)]
        asking = asyncio.gather(*clients)
        await relayed.until(lambda: all(len(each) > 3 for each in ended))
        server.process.terminate()
        await asking
        return ended

    for each in asyncio.run(stop()):
        assert each[-1] == "ConnectError"
        assert set(each[:-1]) == {200}
    assert server.stop() == 0

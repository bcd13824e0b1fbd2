"""Which replicas are told of which adapters, and what a replica may answer."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from infra.engine_settings import EngineProcess
from infra.errors import EngineFailed
from infra.gateway_settings import Gateway
from service.gateway.adapter_hosts import HttpHost, Models, Unreachable
from service.gateway.adapter_places import Places
from service.supervision.engines import Engines
from vllm_server import free_port

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Handler(BaseHTTPRequestHandler):
    status, answer = 200, b""

    def do_GET(self) -> None:
        self.send_response(type(self).status)
        self.send_header("content-length", str(len(type(self).answer)))
        self.end_headers()
        self.wfile.write(type(self).answer)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield running
        running.shutdown()


def gateway(**changes: Any) -> Gateway:
    upstreams = {"u": {"urls": ["http://127.0.0.1:1", "http://127.0.0.1:2"]}, "e": {"engine": "x"}}
    routes = {
        "plain": {"targets": [{"upstream": "u"}]},
        "a": {"targets": [{"upstream": "u", "adapter": "adapter/a@live"}]},
        "b": {
            "targets": [{"upstream": "u", "adapter": "adapter/b"}],
            "shadow": [{"upstream": "e", "adapter": "adapter/a@live"}],
        },
    }
    return Gateway.model_validate({"upstreams": upstreams, "routes": routes, **changes})


async def test_routes_say_which_adapters_belong_where(tmp_path: Path) -> None:
    settings = {"x": EngineProcess(model="m", lora=True, max_lora_rank=8, model_digest="sha256:1")}
    places = Places(gateway, engines=Engines(tmp_path, settings))
    found = places()
    assert found["u"].references == {"adapter/a@live", "adapter/b"}
    assert [host.address for host in found["u"].hosts] == [
        "http://127.0.0.1:1",
        "http://127.0.0.1:2",
    ]
    assert found["e"].references == {"adapter/a@live"}
    assert list(found["e"].hosts) == []
    assert found["e"].base.names == {"m"}
    assert (found["e"].base.max_rank, found["e"].base.digest) == (8, "sha256:1")
    assert places()["u"].hosts == found["u"].hosts
    await places.close()


async def test_connections_to_what_no_route_leads_to_are_closed(
    server: ThreadingHTTPServer, tmp_path: Path
) -> None:
    Handler.status, Handler.answer = 200, b'{"data": []}'
    url = f"http://127.0.0.1:{server.server_port}"
    in_force = gateway(upstreams={"u": {"urls": [url]}, "e": {"engine": "x"}})
    places = Places(lambda: in_force, engines=Engines(tmp_path, {"x": EngineProcess(model="m")}))
    [host] = places()["u"].hosts
    assert isinstance(host, HttpHost)
    await host.models()
    assert places()["u"].hosts == [host]
    assert host.is_open
    in_force = gateway()
    assert host not in places()["u"].hosts
    async with asyncio.timeout(10):
        while host.is_open:
            await asyncio.sleep(0.001)
    await places.close()


async def test_models_and_adapters_are_told_apart(server: ThreadingHTTPServer) -> None:
    cards = [{"id": "tiny", "root": "/m", "parent": None}, {"id": "a", "parent": "tiny"}]
    Handler.status, Handler.answer = 200, json.dumps({"data": cards}).encode()
    host = HttpHost(f"http://127.0.0.1:{server.server_port}")
    assert await host.models() == Models(frozenset({"tiny", "/m"}), frozenset({"a"}))
    await host.close()


@pytest.mark.parametrize(
    ("status", "answer"),
    [(200, b"\xff"), (200, b"[]"), (200, b'{"data": [1]}'), (200, b"{}"), (500, b"no"), (401, b"")],
)
async def test_garbage_is_a_failure_of_the_engine(
    server: ThreadingHTTPServer, status: int, answer: bytes
) -> None:
    Handler.status, Handler.answer = status, answer
    host = HttpHost(f"http://127.0.0.1:{server.server_port}")
    with pytest.raises(EngineFailed):
        await host.models()
    await host.close()


async def test_nobody_at_an_address_is_told_apart_from_a_failure() -> None:
    host = HttpHost(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(Unreachable):
        await host.models()
    await host.close()

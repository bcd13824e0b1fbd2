"""After a reload everything goes by the new settings: prices, limits, memory, the currency."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from starlette.testclient import TestClient

import model_server
from infra.settings import Settings
from model_server import Misbehaving
from service.app import create_app
from service.wiring import Components
from waiting import until

BODY = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 10, "temperature": 0}


class Reloading:
    """The application, and settings that it reads anew."""

    def __init__(self, build: Callable[..., Settings], stack: ExitStack) -> None:
        self._build = build
        self._stack = stack
        self.servers = [stack.enter_context(model_server.serving(name=name)) for name in "ab"]

    def start(self, **gateway: Any) -> TestClient:
        self._now = self._settings(gateway)
        components = Components(self._now, reread=lambda: self._now)
        app = create_app(components)
        self.client = TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False)
        return self._stack.enter_context(self.client)

    def reload(self, **gateway: Any) -> None:
        self._now = self._settings(gateway)
        assert self.client.post("/v1/gateway/reload").status_code == 200

    def ask(self, model: str) -> Any:
        return self.client.post("/v1/chat/completions", json={**BODY, "model": model})

    def _settings(self, gateway: dict[str, Any], *, at: int = 0) -> Settings:
        at = gateway.pop("at", at)
        upstreams = {"u": {"urls": [self.servers[at].url]}}
        routes = {
            name: {"targets": [{"upstream": "u"}]} for name in gateway.pop("models", ("free",))
        }
        return self._build(gateway={"upstreams": upstreams, "routes": routes, **gateway})


@pytest.fixture
def service(fast_settings: Callable[..., Settings]) -> Iterator[Reloading]:
    with ExitStack() as stack:
        yield Reloading(fast_settings, stack)


def test_a_route_that_a_reload_brings_is_charged_its_price(service: Reloading) -> None:
    client = service.start()
    price = {"input_per_million": 1_000_000, "output_per_million": 1_000_000}
    service.reload(models=("free", "dear"), prices={"dear": price})
    assert service.ask("dear").status_code == 200
    cost = str(model_server.USAGE["total_tokens"]) + ".00"
    until(lambda: [row["cost"] for row in client.get("/v1/usage").json()["data"]] == [cost])


def test_limits_that_a_reload_brings_bind(service: Reloading) -> None:
    service.start()
    assert service.ask("free").status_code == 200
    service.reload(model_limits={"free": {"requests_per_minute": 1}}, cache_bytes=0)
    assert [service.ask("free").status_code for _ in range(2)] == [200, 429]
    service.reload(cache_bytes=0)
    assert service.ask("free").status_code == 200


def test_answers_of_a_server_that_a_reload_took_away_are_not_given(service: Reloading) -> None:
    service.start()
    assert [_content(service.ask("free")) for _ in range(2)] == ["I am a."] * 2
    assert len(_asked(service.servers[0])) == 1
    service.reload(at=1)
    assert _content(service.ask("free")) == "I am b."


def test_a_memory_that_a_reload_closes_gives_nothing(service: Reloading) -> None:
    service.start()
    service.ask("free")
    service.reload(cache_bytes=0)
    for _ in range(2):
        assert service.ask("free").headers.get("x-ragstone-cache") is None
    assert len(_asked(service.servers[0])) == 3


def test_an_idempotency_key_outlives_a_reload(service: Reloading) -> None:
    client = service.start()

    def ask() -> Any:
        headers = {"Idempotency-Key": "once"}
        body = {**BODY, "model": "free"}
        return client.post("/v1/chat/completions", json=body, headers=headers)

    ask()
    service.reload(at=1, idempotency_seconds=60)
    answered = ask()
    assert answered.headers["x-ragstone-cache"] == "replayed"
    assert _content(answered) == "I am a."


def test_the_currency_is_the_one_in_force(service: Reloading) -> None:
    client = service.start(currency="EUR")
    service.reload(currency="CHF")
    assert client.get("/v1/usage").json()["currency"] == "CHF"


def _content(answered: Any) -> str:
    content: str = answered.json()["choices"][0]["message"]["content"]
    return content


def _asked(server: Misbehaving) -> list[Any]:
    return [asked for asked in server.asked if asked.path == "/v1/chat/completions"]

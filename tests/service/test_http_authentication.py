"""Who gets in: keys where they are asked for, this machine's own pages where they are not."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from starlette.testclient import TestClient

from infra.errors import InvalidConfiguration
from infra.settings import Server
from service.authentication import check_before_start, is_required
from service.wiring import Components

CLOSED = ["/v1/models", "/v1/files", "/metrics", "/openapi.json", "/docs", "/nothing"]
OPEN = ["/health/live", "/health/ready", "/", "/console/console.js"]


@pytest.fixture
def guarded(fast_settings: Any, open_client: Any) -> tuple[TestClient, Components]:
    client = open_client(fast_settings(server={"authentication": "on"}))
    return client, client.app.state.components


@pytest.mark.parametrize("path", CLOSED)
def test_without_a_key_everything_but_health_and_the_page_is_closed(
    guarded: Any, path: str
) -> None:
    client, _ = guarded
    response = client.get(path)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("path", OPEN)
def test_health_and_the_page_need_no_key(guarded: Any, path: str) -> None:
    client, _ = guarded
    assert client.get(path).status_code in {200, 503}


def test_a_key_opens_until_it_is_revoked(guarded: Any) -> None:
    client, components = guarded
    key, text = components.keys.create("test")
    headers = {"authorization": f"Bearer {text}"}
    assert client.get("/v1/models", headers=headers).status_code == 200
    assert client.get("/metrics", headers=headers).status_code == 200
    components.keys.revoke(key.id)
    components.keyring.refresh()  # the next second would do it
    refused = client.get("/v1/models", headers=headers)
    assert refused.status_code == 401
    assert refused.json()["error"]["code"] == "invalid_api_key"


@pytest.mark.parametrize("header", ["Bearer wrong", "Bearer ", "Basic abc", "Bearer \xff", ""])
def test_a_wrong_key_is_a_401(guarded: Any, header: str) -> None:
    client, components = guarded
    components.keys.create("test")
    response = client.get("/v1/models", headers={"authorization": header.encode("latin-1")})
    assert response.status_code == 401


def test_an_expired_key_is_a_401(guarded: Any) -> None:
    client, components = guarded
    _, text = components.keys.create("test", expires_in=timedelta(seconds=-1))
    response = client.get("/v1/models", headers={"authorization": f"Bearer {text}"})
    assert response.status_code == 401


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1", "[::1]:9", "LOCALHOST"])
def test_own_names_are_served_without_a_key(client: TestClient, host: str) -> None:
    assert client.get("/v1/models", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "", "127.0.0.1.nip.io"])
def test_a_foreign_host_name_is_refused_while_no_key_is_asked_for(
    client: TestClient, host: str
) -> None:
    response = client.get("/v1/models", headers={"host": host})
    assert response.status_code == 403
    assert "allowed_hosts" in response.json()["error"]["message"]
    assert client.get("/health/live", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:81"])
def test_a_page_of_another_site_cannot_write(client: TestClient, origin: str) -> None:
    response = client.post("/v1/vector_stores", json={"name": "x"}, headers={"origin": origin})
    assert response.status_code == 403
    assert client.get("/v1/vector_stores").json()["data"] == []


def test_the_own_page_can_write(client: TestClient) -> None:
    headers = {"origin": "http://127.0.0.1"}
    response = client.post("/v1/vector_stores", json={"name": "x"}, headers=headers)
    assert response.status_code == 200


@pytest.mark.parametrize(
    ("host", "authentication", "expected"),
    [
        ("127.0.0.1", "auto", False),
        ("::1", "auto", False),
        ("[::1]", "auto", False),
        ("localhost", "auto", False),
        ("0.0.0.0", "auto", True),
        ("::", "auto", True),
        ("box.example", "auto", True),
        ("127.0.0.1", "on", True),
        ("0.0.0.0", "off", False),
    ],
)
def test_keys_are_asked_for_wherever_others_can_reach(
    host: str, authentication: Any, expected: bool
) -> None:
    assert is_required(Server(host=host, authentication=authentication)) is expected


def test_a_network_address_without_a_key_does_not_start(fast_settings: Any) -> None:
    components = Components(fast_settings(server={"host": "0.0.0.0"}))
    with pytest.raises(InvalidConfiguration, match="ragstone keys create"):
        check_before_start(components.settings.server, lambda: components.keys)
    components.keys.create("first")
    check_before_start(components.settings.server, lambda: components.keys)
    components.close()


def test_a_network_address_without_authentication_is_warned_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = Server(host="0.0.0.0", authentication="off")
    check_before_start(server, lambda: pytest.fail("no key is needed"))
    assert "authentication is off" in caplog.text

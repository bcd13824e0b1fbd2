"""Scopes: every route has its line in the table, and keys open what they were made for."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from service import permissions
from service.callers import SCOPES
from service.keys import Opens
from service.wiring import Components

FEWEST_ROUTES = 60
FEWEST_CLOSED = 20


@pytest.fixture
def guarded(fast_settings: Any, open_client: Any) -> tuple[TestClient, Components]:
    client = open_client(fast_settings(server={"authentication": "on"}))
    return client, client.app.state.components


def bearer(text: str) -> dict[str, str]:
    return {"authorization": f"Bearer {text}"}


def test_every_route_has_its_line_in_the_table(client: TestClient) -> None:
    routes = [each for each in client.app.routes if isinstance(each, Route | Mount)]  # type: ignore[attr-defined]
    assert len(routes) >= FEWEST_ROUTES
    missing = [
        each.path
        for each in routes
        if not permissions.is_open(each.path) and permissions.find(each.path) is None
    ]
    assert missing == []
    used = {id(permissions.find(each.path)) for each in routes}
    without = [path for path, line in permissions.PERMISSIONS.items() if id(line) not in used]
    assert without == []
    named = {
        scope
        for each in permissions.PERMISSIONS.values()
        for scope in (*each.reading, *each.writing)
    }
    assert named == SCOPES


@pytest.mark.parametrize(
    ("method", "path", "scopes"),
    [
        ("GET", "/v1/files/file-1/content", {"read", "write"}),
        ("DELETE", "/v1/files/file-1", {"write"}),
        ("POST", "/v1/vector_stores/x/search", {"ask", "read", "write"}),
        ("POST", "/v1/vector_stores/x", {"write"}),
        ("POST", "/v1/chat/completions", {"ask", "models"}),
        ("POST", "/v1/embeddings", {"models"}),
        ("POST", "/v1/predict", {"models"}),
        ("GET", "/v2", {"models"}),
        ("POST", "/v2/models/churn/infer", {"models"}),
        ("POST", "/v2/repository/models/churn/load", {"models", "admin"}),
        ("POST", "/v1/keys", {"admin"}),
        ("GET", "/v1/usage", {"admin"}),
        ("GET", "/nothing", {"admin"}),
        ("GET", "/v1//keys", {"admin"}),
        ("GET", "/v1/KEYS", {"admin"}),
        ("GET", "/openapi.json", set()),
    ],
)
def test_an_address_asks_for_its_scopes(method: str, path: str, scopes: set[str]) -> None:
    assert set(permissions.scopes_for(method, path)) == scopes


def test_keys_open_what_they_were_made_for(guarded: Any) -> None:
    client, components = guarded
    _, text = components.keys.create("reader", opens=Opens(scopes=("read",)))
    assert client.get("/v1/files", headers=bearer(text)).status_code == 200
    for method, path in (("POST", "/v1/vector_stores"), ("GET", "/v1/keys"), ("POST", "/v1/jobs")):
        refused = client.request(method, path, headers=bearer(text), json={"name": "x"})
        assert refused.status_code == 403
        assert "does not have the scope" in refused.json()["error"]["message"]
    question = {"collection": "x", "question": "y"}
    assert client.post("/v1/answers", headers=bearer(text), json=question).status_code == 403


def test_keys_are_made_changed_rotated_and_revoked_over_http(guarded: Any) -> None:
    client, components = guarded
    _, admin = components.keys.create("admin", opens=Opens(scopes=("admin",)))
    made = client.post(
        "/v1/keys",
        headers=bearer(admin),
        json={"name": "ada", "scopes": ["read"], "requests_per_minute": 5, "expires_in_days": 1},
    ).json()
    assert made["key"].startswith("rgs_")
    assert made["requests_per_minute"] == 5
    assert client.get("/v1/files", headers=bearer(made["key"])).status_code == 200
    path = f"/v1/keys/{made['id']}"
    changed = client.post(
        path, headers=bearer(admin), json={"requests_per_minute": None, "scopes": ["ask"]}
    ).json()
    assert (changed["requests_per_minute"], changed["scopes"]) == (None, ["ask"])
    assert changed["expires_at"] == made["expires_at"]
    assert client.get("/v1/files", headers=bearer(made["key"])).status_code == 403
    rotated = client.post(f"{path}/rotate", headers=bearer(admin)).json()
    assert client.get("/v1/models", headers=bearer(made["key"])).status_code == 401
    assert client.get("/v1/models", headers=bearer(rotated["key"])).status_code == 200
    listed = client.get("/v1/keys", headers=bearer(admin), params={"limit": 1}).json()
    assert listed["has_more"] is True
    assert "key" not in client.get(path, headers=bearer(admin)).json()
    assert client.delete(path, headers=bearer(admin)).json()["state"] == "revoked"
    assert client.get("/v1/models", headers=bearer(rotated["key"])).status_code == 401


@pytest.mark.parametrize(
    "body",
    [
        {"name": ""},
        {"name": "x", "scopes": ["root"]},
        {"name": "x", "scopes": []},
        {"name": "x", "requests_per_minute": -1},
        {"name": "x", "tokens_per_minute": 10**18},
        {"name": "x", "max_concurrent": 1.5},
        {"name": "x", "expires_in_days": -1},
        {"name": "x", "expires_in_days": 1e308},
        {"name": "x", "models": ["*"] * 101},
        {"name": "x\ny"},
    ],
)
def test_malformed_keys_are_refused(client: TestClient, body: dict[str, Any]) -> None:
    assert client.post("/v1/keys", json=body).status_code == 400


def test_what_only_admins_reach_tenants_do_not_reach(guarded: Any) -> None:
    client, components = guarded
    _, own = components.keys.create("acme-admin", opens=Opens(tenant="acme"))
    _, operators = components.keys.create("root")
    closed = [
        (method, each.path)
        for each in client.app.routes
        if isinstance(each, Route)
        for method in (each.methods or set()) - {"HEAD", "OPTIONS"}
        if permissions.scopes_for(method, each.path) == ("admin",)
        and not permissions.is_open(each.path)
        and not each.path.startswith(
            ("/v1/interactions", "/v1/feedback", "/v1/fine_tuning", "/v1/models/")
        )  # of which every tenant has its own
    ]
    assert len(closed) >= FEWEST_CLOSED
    for method, path in closed:
        asked = {"json": {}} if method in {"POST", "PUT", "PATCH"} else {}
        refused = client.request(method, path, headers=bearer(own), **asked)
        assert refused.status_code == 403, (method, path)
        assert "confined to the tenant" in refused.json()["error"]["message"]
        if method == "GET":
            assert client.get(path, headers=bearer(operators)).status_code != 403

"""Over HTTP, a tenant's key reads, counts, changes and deletes its tenant's documents only."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from service.app import create_app
from service.keys import Opens
from service.wiring import Components

CALLERS = {
    "operator": Opens(),
    "ada": Opens(tenant="acme", groups=("group:board",)),
    "bob": Opens(tenant="acme"),
    "cyd": Opens(tenant="bolt"),
}
OPERATORS = (
    "/v1/artifacts",
    "/v1/comparisons/churn",
    "/v1/jobs",
    "/v1/runs",
    "/v1/sources",
    "/metrics",
    "/v1/collections/shared/builds",
)
PREDICT = {"model": "churn", "data": "customers", "name": "churn", "cache": True}


class Service:
    """The application, and its keys' headers."""

    def __init__(self, client: TestClient, keys: dict[str, str]) -> None:
        self.client = client
        self._keys = keys

    def call(self, who: str, method: str, path: str, **more: Any) -> Any:
        headers = {"Authorization": f"Bearer {self._keys[who]}"}
        return self.client.request(method, path, headers=headers, **more)

    def add(self, who: str, text: str, *, store: str = "shared", **attach: Any) -> str:
        """Upload a text, attach it and have it read; returns the file's id."""
        upload = self.call(
            who,
            "POST",
            "/v1/files",
            files={"file": (f"{text.split()[-1]}.txt", text.encode())},
            data={"purpose": "assistants"},
        )
        file_id: str = upload.json()["id"]
        path = f"/v1/vector_stores/{store}/files"
        attached = self.call(who, "POST", path, json={"file_id": file_id, **attach})
        assert attached.status_code == 200, attached.text
        components: Components = self.client.app.state.components  # type: ignore[attr-defined]
        collection = components.collections.get(store)
        components.ingester.process(collection, file_id)
        assert self.call("operator", "GET", f"{path}/{file_id}").json()["status"] == "completed"
        return file_id


@pytest.fixture
def service(fast_settings: Callable[..., Any]) -> Iterator[Service]:
    chosen = fast_settings(
        server={"authentication": "on"},
        jobs={"in_process": False},
        retrieval={"embedder": "hashing", "chunk_tokens": 60, "chunk_overlap_tokens": 10},
    )
    components = Components(chosen)
    keys = {name: components.keys.create(name, opens=opens)[1] for name, opens in CALLERS.items()}
    with ExitStack() as stack:
        client = stack.enter_context(
            TestClient(
                create_app(components), base_url="http://127.0.0.1", raise_server_exceptions=False
            )
        )
        service = Service(client, keys)
        service.call("operator", "POST", "/v1/vector_stores", json={"name": "shared"})
        yield service


def everything(service: Service, who: str) -> str:
    """What every route that reads tells a caller, as one text."""
    said = []
    for path in ("/v1/files", "/v1/vector_stores", "/v1/models"):
        said.append(service.call(who, "GET", path).text)
    stores = [each["id"] for each in service.call(who, "GET", "/v1/vector_stores").json()["data"]]
    for store in stores:
        listed = service.call(who, "GET", f"/v1/vector_stores/{store}/files?limit=100")
        said.append(listed.text)
        said.append(service.call(who, "GET", f"/v1/vector_stores/{store}").text)
        for each in listed.json()["data"]:
            path = f"/v1/vector_stores/{store}/files/{each['id']}/content"
            said.append(service.call(who, "GET", path).text)
    for each in service.call(who, "GET", "/v1/files").json()["data"]:
        said.append(service.call(who, "GET", f"/v1/files/{each['id']}/content").text)
    question = "Which secret does the keeper of the gate know?"
    asked: list[tuple[str, dict[str, Any]]] = [
        ("/v1/search", {"query": question, "collection": "shared", "limit": 100}),
        ("/v1/answers", {"question": question, "collection": "shared", "limit": 100}),
        ("/v1/vector_stores/shared/search", {"query": question, "max_num_results": 50}),
        (
            "/v1/chat/completions",
            {"model": "rag/shared", "messages": [{"role": "user", "content": question}]},
        ),
    ]
    for path, body in asked:
        answer = service.call(who, "POST", path, json=body)
        assert answer.status_code == 200, answer.text
        said.append(answer.text.replace(question, ""))
    streamed = {"question": question, "collection": "shared", "limit": 100, "stream": True}
    said.append(service.call(who, "POST", "/v1/answers", json=streamed).text)
    return "\n".join(said)


def may_read(who: str, owner: str, allow: tuple[str, ...]) -> bool:
    if who == "operator" or "public" in allow:
        return True
    if CALLERS[who].tenant is None or CALLERS[who].tenant != CALLERS[owner].tenant:
        return False
    return not allow or bool({f"key:{who}", *CALLERS[who].groups} & set(allow))


@settings(
    max_examples=4,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    uploads=st.lists(
        st.tuples(
            st.sampled_from(sorted(CALLERS)),
            st.lists(st.sampled_from(("key:ada", "key:bob", "group:board", "public")), max_size=2),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_no_route_tells_of_a_document_of_others(
    service: Service, uploads: list[tuple[str, list[str]]]
) -> None:
    written: dict[str, tuple[str, tuple[str, ...]]] = {}
    for number, (who, wanted) in enumerate(uploads):
        names = tuple(dict.fromkeys(wanted))
        if who == "operator":
            names = tuple(name for name in names if name == "public")
        elif "public" in names or not may_read(who, who, names):
            names = ()
        secret = f"zq{number}x{abs(hash((who, names))) % 10_000}q"
        file_id = service.add(
            who, f"The keeper of the gate knows the secret {secret}", allow=list(names)
        )
        written |= {secret: (who, names), file_id: (who, names)}
    for who in CALLERS:
        said = everything(service, who)
        mine = {canary for canary, (owner, names) in written.items() if may_read(who, owner, names)}
        assert {canary for canary in written if canary in said} == mine
        counted = service.call(who, "GET", "/v1/vector_stores/shared").json()["file_counts"]
        listed = service.call(who, "GET", "/v1/vector_stores/shared/files?limit=100").json()["data"]
        assert counted["total"] == len(listed)


def test_document_of_another_tenant_looks_like_one_that_is_not_there(service: Service) -> None:
    file_id = service.add("cyd", "The moat is deep.")
    within = "/v1/vector_stores/shared/files"
    tried = [
        ("GET", "/v1/files/{}", None),
        ("GET", "/v1/files/{}/content", None),
        ("DELETE", "/v1/files/{}", None),
        ("GET", f"{within}/{{}}", None),
        ("GET", f"{within}/{{}}/content", None),
        ("POST", f"{within}/{{}}", {"attributes": {"year": 1}}),
        ("DELETE", f"{within}/{{}}", None),
        ("POST", within, {"file_id": "{}"}),
        ("GET", f"{within}?after={{}}", None),
        ("GET", "/v1/files?after={}", None),
        ("POST", "/v1/vector_stores/shared/file_batches", {"file_ids": ["{}"]}),
        ("POST", "/v1/vector_stores", {"name": "mine", "file_ids": ["{}"]}),
    ]
    for method, path, body in tried:
        answers = []
        for number in (file_id, "file-none"):
            filled = json.loads(json.dumps(body).replace("{}", number)) if body else None
            answer = service.call("bob", method, path.format(number), json=filled)
            answers.append((answer.status_code, answer.text.replace(number, "ID")))
        assert answers[0] == answers[1], (method, path)
        assert answers[0][0] == 404, (method, path)
    assert service.call("cyd", "GET", f"{within}/{file_id}").status_code == 200


def test_key_with_a_tenant_does_not_reach_what_is_the_operators(service: Service) -> None:
    service.add("operator", "The wall is old.", allow=["public"])
    for path in OPERATORS:
        assert service.call("ada", "GET", path).status_code == 403, path
        assert service.call("operator", "GET", path).status_code != 403, path
    [public] = service.call("ada", "GET", "/v1/vector_stores/shared/files").json()["data"]
    within = f"/v1/vector_stores/shared/files/{public['id']}"
    assert service.call("ada", "GET", f"{within}/content").json()["data"][0]["text"]
    for method, path, body in (
        ("DELETE", within, None),
        ("POST", within, {"attributes": {"year": 1}}),
        ("DELETE", f"/v1/files/{public['id']}", None),
        ("DELETE", "/v1/vector_stores/shared", None),
        ("POST", "/v1/vector_stores/shared", {"name": "taken"}),
        # Whose job it is stands in the body: a tenant's key starts none, not even its own.
        ("POST", "/v1/jobs", {"job": "predict", "arguments": PREDICT, "tenant": "bolt"}),
        ("POST", "/v1/jobs", {"job": "predict", "arguments": PREDICT, "tenant": "acme"}),
    ):
        assert service.call("ada", method, path, json=body).status_code == 403, (method, path)
    assert service.call("operator", "GET", "/v1/jobs?job=predict").json()["data"] == []


def test_key_writes_for_its_tenant_only(service: Service) -> None:
    file_id = service.add("ada", "The moat is deep.", allow=["group:board"])
    path = f"/v1/vector_stores/shared/files/{file_id}"
    for body, status in (
        ({"tenant": "bolt"}, 403),
        ({"allow": ["public"]}, 403),
        ({"allow": ["key:bob"]}, 400),
        ({"allow": ["board"]}, 400),
        ({}, 400),
        ({"allow": ["key:ada"]}, 200),
    ):
        assert service.call("ada", "POST", path, json=body).status_code == status, body
    shown = service.call("ada", "GET", path).json()
    assert (shown["tenant"], shown["allow"]) == ("acme", ["key:ada"])
    assert service.call("bob", "GET", path).status_code == 404
    assert service.call("operator", "POST", path, json={"tenant": "bolt"}).status_code == 409


def test_collection_of_a_tenant_is_not_there_for_another(service: Service) -> None:
    made = service.call("ada", "POST", "/v1/vector_stores", json={"name": "acmes"}).json()["id"]
    for who, status in (("bob", 200), ("cyd", 404), ("operator", 200)):
        assert service.call(who, "GET", f"/v1/vector_stores/{made}").status_code == status
        assert service.call(who, "GET", "/v1/models/rag/acmes").status_code == status
    near = service.call("cyd", "GET", "/v1/vector_stores/acme").text
    assert "acmes" not in near
    assert service.call("cyd", "GET", f"/v1/vector_stores?after={made}").status_code == 404
    assert service.call("ada", "DELETE", f"/v1/vector_stores/{made}").status_code == 200


def test_key_sees_the_collections_it_was_made_for(
    service: Service,
) -> None:
    components: Components = service.client.app.state.components  # type: ignore[attr-defined]
    _, text = components.keys.create("narrow", opens=Opens(tenant="acme", collections=("acme-*",)))
    headers = {"Authorization": f"Bearer {text}"}
    get, post = service.client.get, service.client.post
    assert get("/v1/vector_stores", headers=headers).json()["data"] == []
    assert get("/v1/vector_stores/shared", headers=headers).status_code == 404
    body = {"query": "wall", "collection": "shared"}
    assert post("/v1/search", headers=headers, json=body).status_code == 404
    assert post("/v1/vector_stores", headers=headers, json={"name": "mine"}).status_code == 403
    assert post("/v1/vector_stores", headers=headers, json={"name": "acme-1"}).status_code == 200
    assert [each["id"] for each in get("/v1/models", headers=headers).json()["data"]] == [
        "rag/acme-1"
    ]


def test_what_was_answered_from_a_secret_is_told_to_who_may_read_it(service: Service) -> None:
    service.add("ada", "The keeper of the vault is zq-pelican.", allow=["group:board"])
    question = "Who is the keeper of the vault?"
    asked = {"model": "rag/shared", "input": question}
    first = service.call("ada", "POST", "/v1/responses", json=asked).json()
    assert "zq-pelican" in json.dumps(first)
    followed = {**asked, "input": "And since when?", "previous_response_id": first["id"]}
    second = service.call("ada", "POST", "/v1/responses", json=followed).json()
    talk = service.call("ada", "POST", "/v1/conversations", json={}).json()["id"]
    body = {"question": question, "collection": "shared", "conversation": talk}
    service.call("ada", "POST", "/v1/answers", json=body)
    items = f"/v1/conversations/{talk}/items"
    answer, said = service.call("ada", "GET", items).json()["data"]
    assert answer["role"] == "assistant"
    for path in (f"/v1/responses/{first['id']}", f"/v1/responses/{second['id']}"):
        assert service.call("ada", "GET", path).status_code == 200
        assert service.call("bob", "GET", path).status_code == 404
        assert service.call("bob", "GET", f"{path}/input_items").status_code == 404
        assert service.call("bob", "DELETE", path).status_code == 404
    assert service.call("bob", "POST", "/v1/responses", json=followed).status_code == 404
    assert service.call("bob", "GET", items).json()["data"] == [said]
    for method in ("GET", "DELETE"):
        assert service.call("bob", method, f"{items}/{answer['id']}").status_code == 404
    assert service.call("bob", "GET", f"{items}?after={answer['id']}").status_code == 404

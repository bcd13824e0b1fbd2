"""Health, metrics, the pages, and what starting costs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import insert
from starlette.testclient import TestClient

import chat_server
from infra.database.schema import change
from retrieval.receipts import Asked
from retrieval.sources import Source
from service import following
from service.app import create_app
from service.following import Follower
from service.routes.console import FOLDER
from service.wiring import Components
from service.work.erasing import erase

ROOT = Path(__file__).parent.parent.parent
HEAVY = ("torch", "transformers", "sentence_transformers", "mlflow", "ray", "faiss", "tantivy")


def test_the_application_imports_nothing_heavy() -> None:
    code = (
        f"import sys, service.app, service.server; print([m for m in {HEAVY} if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.strip() == "[]"


def test_live_and_ready_tell_the_parts(client: TestClient) -> None:
    assert client.get("/health/live").json() == {"status": "live"}
    for _ in range(200):
        answered = client.get("/health/ready")
        parts = answered.json()["parts"]
        assert set(parts) == {"database", "views", "embedder", "budgets"}
        assert (answered.status_code == 200) == (answered.json()["status"] == "ready")
        if parts["embedder"] == parts["views"] == "ready":
            return
    pytest.fail(f"still {parts}")


def test_a_question_waits_while_the_embedder_loads(
    fast_settings: Any, open_client: Any, add_text: Any
) -> None:
    client = open_client(fast_settings())
    client.post("/v1/vector_stores", json={"name": "x"})
    add_text(client, "x", "a.txt", "Parking costs 40 euros.")
    embedder = client.app.state.components.embedder
    loaded = threading.Event()
    at_once = embedder.embed

    def slowly(texts: Any, *, kind: Any) -> Any:
        loaded.wait(10)
        return at_once(texts, kind=kind)

    embedder.embed = slowly
    answers: list[Any] = []
    body = {"question": "What does parking cost?", "collection": "x"}
    asking = threading.Thread(target=lambda: answers.append(client.post("/v1/answers", json=body)))
    asking.start()
    assert client.get("/health/live").status_code == 200
    assert answers == []
    loaded.set()
    asking.join(10)
    assert answers[0].status_code == 200


def test_a_database_that_is_gone_is_not_ready(fast_settings: Any, open_client: Any) -> None:
    client = open_client(fast_settings(database_url=f"sqlite:///{Path.cwd()}/gone/test.db"))
    components = client.app.state.components
    components.worker.stop()
    components.database.close()
    for path in Path("gone").iterdir():
        path.unlink()
    Path("gone").rmdir()
    answered = client.get("/health/ready")
    assert answered.status_code == 503
    assert answered.json()["parts"]["database"] == "failed"
    assert client.get("/health/live").status_code == 200
    listed = client.get("/v1/vector_stores")
    assert (listed.status_code, listed.headers["retry-after"]) == (503, "1")
    assert listed.json()["error"]["code"] == "storage_unavailable"


def test_views_follow_what_another_process_writes(fast_settings: Any, add_text: Any) -> None:
    components = Components(fast_settings())
    collection = components.collections.create("x", components.recipe())
    follower = Follower(components.database, components.collections, components.views)
    assert not follower.has_opened_all
    follower.follow()
    assert follower.has_opened_all
    view = components.views.get(collection)
    with components.database.write() as connection:
        connection.execute(
            insert(change).values(build_id=collection.build_id, operation="delete", chunk_id=7)
        )
    assert view.index.watermark == 0
    follower.follow()
    assert view.index.watermark == view.latest_sequence() == 1
    components.collections.delete("x")
    follower.follow()
    assert components.views.get(collection) is not view
    components.close()


def test_answers_go_with_the_documents_that_another_process_removes_and_with_nothing_else(
    fast_settings: Any, tmp_path: Path
) -> None:
    here, there = Components(fast_settings()), Components(fast_settings())
    memory = {}
    for part in ("gateway", "repeated_responses"):
        memory[part] = Remembering()
        vars(here)[part] = memory[part]
    follower = Follower(
        here.database, here.collections, here.views, on_followed=here.forget_removed_answers
    )
    whole = there.collections.create("x", there.recipe())

    def ingest() -> None:
        sources = []
        for number in range(4):
            path = tmp_path / f"{number}.txt"
            path.write_text(f"Wall {number} is made of ragstone, {time.monotonic()}.")
            sources.append(Source(f"test:{number}", path, path.name))
        list(there.ingester.ingest(whole, sources))

    def left() -> list[set[str]]:
        follower.follow()
        return [each.quoted for each in memory.values()]

    ingest()
    first, second, third, fourth = [
        each.file_id for each in there.documents.list(whole, limit=9).items
    ]
    memory["gateway"].quoted = {first, third}
    memory["repeated_responses"].quoted = {first, second, fourth}
    assert left() == [{first, third}, {first, second, fourth}]
    ingest()  # other versions of the same documents
    there.compactor.compact(whole)
    ids = [each.file_id for each in there.documents.list(whole, limit=9).items]
    assert ids == [first, second, third, fourth]
    assert left() == [{first, third}, {first, second, fourth}]
    there.documents.delete(whole, first)  # without a receipt
    assert left() == [{third}, {second, fourth}]
    there.erasure.erase(there.documents, whole, [second], asked=Asked("test"))
    assert left() == [{third}, {fourth}]
    there.delete_collection("x")
    assert left() == [set(), set()]
    for parts in (here, there):
        parts.close()


class Remembering:
    """Stands where answers are remembered; closing asks nothing of it."""

    def __init__(self) -> None:
        self.quoted: set[str] = set()

    def documents(self) -> set[str]:
        return set(self.quoted)

    def forget(self, documents: Collection[str]) -> int:
        before = len(self.quoted)
        self.quoted -= set(documents)
        return before - len(self.quoted)


def test_a_deletion_that_commits_late_is_seen(fast_settings: Any, tmp_path: Path) -> None:
    """No sequence tells of it: the changes of another collection were committed before."""
    parts = Components(fast_settings())
    memory = vars(parts)["gateway"] = Remembering()
    whole = parts.collections.create("x", parts.recipe())
    path = tmp_path / "wall.txt"
    path.write_text("The wall is made of ragstone.")
    list(parts.ingester.ingest(whole, [Source("test:1", path, path.name)]))
    (document,) = [each.file_id for each in parts.documents.list(whole, limit=9).items]
    memory.quoted = {document}
    follower = Follower(
        parts.database, parts.collections, parts.views, on_followed=parts.forget_removed_answers
    )
    follower.follow()
    state = follower._state()
    parts.documents.delete(whole, document)
    follower._seen = follower._state()
    assert follower._seen != state
    follower._looked_at = float("-inf")
    follower.follow()
    assert memory.quoted == set()
    parts.close()


def test_a_follower_outlives_whatever_its_callbacks_raise(
    fast_settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "INTERVAL_SECONDS", 0.01)
    monkeypatch.setattr(following, "EVERYTHING_SECONDS", 0.02)
    parts = Components(fast_settings())
    called: list[int] = []

    def fail() -> None:
        called.append(1)
        raise LookupError("a fault that nobody foresaw")

    follower = Follower(parts.database, parts.collections, parts.views, on_followed=fail)
    follower.start()
    deadline = time.monotonic() + 10
    while len(called) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    follower.stop()
    assert len(called) >= 3
    assert follower.has_opened_all
    parts.close()


def test_answers_in_memory_go_with_what_another_process_erases(
    fast_settings: Any, open_client: Any, add_text: Any
) -> None:
    with chat_server.serving("The wall is made of ragstone [1].") as model:
        gateway = {
            "upstreams": {"here": {"urls": [model.url]}},
            "routes": {"m": {"targets": [{"upstream": "here", "model": "tiny"}]}},
            "cache_bytes": 2**20,
        }
        settings = fast_settings(gateway=gateway, generation={"engine": "echo", "model": "m"})
        client = open_client(settings)
        client.post("/v1/vector_stores", json={"name": "x"})
        file_id = add_text(client, "x", "wall.txt", "The wall is made of ragstone.")
        hello = [{"role": "user", "content": "Hello"}]
        plain = {"model": "m", "messages": hello, "temperature": 0, "stream": True}
        body = {"model": "rag/x", "input": "What is the wall made of?"}

        def ask() -> Any:
            key = {"Idempotency-Key": "k"}
            return client.post("/v1/responses", json=body, headers=key).json()["id"]

        repeated = client.app.state.components.repeated_responses
        first = ask()
        assert ask() == first
        client.post("/v1/chat/completions", json=plain)
        asked = len(model.asked)
        assert client.app.state.components.gateway.documents() == {file_id}
        assert repeated.documents() == {file_id}
        there = Components(settings)
        erase(there, there.collections.get("x"), [file_id], by="test", compact=False)
        there.close()
        deadline = time.monotonic() + 30
        while repeated.documents() or client.app.state.components.gateway.documents():
            assert time.monotonic() < deadline, "answers in memory outlive the document"
            time.sleep(0.05)
        assert ask() != first
        client.post("/v1/chat/completions", json=plain)
        assert len(model.asked) == asked, "an answer that quotes nothing was forgotten, too"


def test_metrics_count_by_route_template_not_by_path(client: TestClient, handbook: str) -> None:
    for number in range(3):
        client.get(f"/v1/files/file-{number}")
    client.post("/v1/answers", json={"question": "leave?", "collection": handbook})
    client.get("/made/up")
    answered = client.get("/metrics")
    assert answered.headers["content-type"].startswith("text/plain")
    families = {family.name: family for family in text_string_to_metric_families(answered.text)}
    requests = {
        tuple(sorted(sample.labels.items())): sample.value
        for sample in families["ragstone_http_requests"].samples
        if sample.name.endswith("_total")
    }
    template = (("method", "GET"), ("route", "/v1/files/{file_id}"), ("status", "404"))
    assert requests[template] == 3
    assert requests[(("method", "GET"), ("route", "unmatched"), ("status", "404"))] == 1
    value = {
        sample.name + json.dumps(sample.labels): sample.value
        for family in families.values()
        for sample in family.samples
    }
    assert value['ragstone_answers_total{"engine": "echo", "outcome": "answered"}'] == 1
    assert value['ragstone_documents_ingested_total{"outcome": "completed"}'] == 2
    assert value["ragstone_chunks_committed_total{}"] == 2
    assert value['ragstone_search_duration_seconds_count{"stage": "dense"}'] == 1
    assert value["ragstone_questions_running{}"] == 0


def test_pages_allow_no_script_from_elsewhere_and_none_inline(client: TestClient) -> None:
    for path in ("/", "/docs", "/console/docs.html"):
        page = client.get(path)
        assert page.headers["content-type"].startswith("text/html")
        assert page.headers["content-security-policy"].startswith("default-src 'self'")
        assert page.headers["x-content-type-options"] == "nosniff"
        assert re.search(r"<script(?![^>]*\bsrc=)|\bon\w+=|style=|https?://", page.text) is None
        assets = re.findall(r'(?:src|href)="(/console/[^"]+)"', page.text)
        assert len(assets) >= 3
        assert {client.get(asset).status_code for asset in assets} == {200}


def test_the_pages_never_set_markup_from_text() -> None:
    scripts = sorted(FOLDER.glob("*.js"))
    assert len(scripts) == 4
    forbidden = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(")
    assert [path.name for path in scripts if forbidden.search(path.read_text("utf-8"))] == []


@pytest.mark.parametrize("name", ["../app.py", "index.html", "x.js", "..%2Fapp.py"])
def test_only_the_pages_own_files_are_served(client: TestClient, name: str) -> None:
    assert client.get(f"/console/{name}").status_code in {400, 404}


@pytest.mark.parametrize("when", ["start", "end"])
def test_part_that_fails_keeps_no_other_open(
    fast_settings: Any, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    components, closed = Components(fast_settings()), []

    async def fail(**_: object) -> None:
        raise OSError("a fault of ours")

    def close() -> None:
        Components.close(components)
        closed.append("all")

    monkeypatch.setattr(components, "close", close)
    if when == "start":
        monkeypatch.setattr(components.routes, "start", fail)
    else:
        monkeypatch.setattr(components.adapters, "close", fail)
    client = TestClient(create_app(components))
    with pytest.raises(OSError, match="a fault of ours"), client:
        assert when == "end"
    assert closed == ["all"]


def test_a_start_that_fails_closes_what_it_had_opened(
    fast_settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    components = Components(fast_settings())
    closed: list[str] = []

    def fail(_: object) -> None:
        raise LookupError("a fault of ours")

    def close() -> None:
        Components.close(components)
        closed.append("all")

    monkeypatch.setattr(Components, "files", property(fail))
    monkeypatch.setattr(components, "close", close)
    with pytest.raises(LookupError), TestClient(create_app(components)):
        pass
    assert closed == ["all"]
    names = {thread.name for thread in threading.enumerate()}
    assert names.isdisjoint({"money", "keyring"})

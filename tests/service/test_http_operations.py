"""Health, metrics, the pages, and what starting costs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import insert
from starlette.testclient import TestClient

from infra.database.schema import change
from model_server import serving
from retrieval.receipts import Asked
from retrieval.sources import Source
from service.app import create_app
from service.erasing import erase
from service.following import Follower
from service.routes.console import FOLDER
from service.wiring import Components

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


def test_what_another_process_removes_is_told_and_what_it_adds_is_not(
    fast_settings: Any, tmp_path: Path
) -> None:
    here, there = Components(fast_settings()), Components(fast_settings())
    told: list[str] = []
    follower = Follower(
        here.database, here.collections, here.views, on_removed=lambda: told.append("gone")
    )
    whole = there.collections.create("x", there.recipe())
    follower.follow()
    sources = []
    for number in range(2):
        path = tmp_path / f"{number}.txt"
        path.write_text(f"Wall {number} is made of ragstone.")
        sources.append(Source(f"test:{number}", path, path.name))
    list(there.ingester.ingest(whole, sources))
    follower.follow()
    assert told == []
    first, second = [each.file_id for each in there.documents.list(whole, limit=9).items]
    there.documents.delete(whole, first)  # without a receipt
    follower.follow()
    assert told == ["gone"]
    there.erasure.erase(there.documents, whole, [second], asked=Asked("test"))
    follower.follow()
    there.delete_collection("x")
    follower.follow()
    follower.follow()
    assert told == ["gone"] * 3
    for parts in (here, there):
        parts.close()


def test_answers_in_memory_go_with_what_another_process_erases(
    fast_settings: Any, open_client: Any, add_text: Any
) -> None:
    with serving() as server:
        upstream = {"urls": [server.url]}
        route = {"targets": [{"upstream": "here", "model": "tiny"}]}
        gateway = {"upstreams": {"here": upstream}, "routes": {"m": route}, "cache_bytes": 2**20}
        settings = fast_settings(gateway=gateway)
        client = open_client(settings)
        client.post("/v1/vector_stores", json={"name": "x"})
        file_id = add_text(client, "x", "wall.txt", "The wall is made of ragstone.")
        hello = [{"role": "user", "content": "Hello"}]
        asked = {"model": "m", "messages": hello, "temperature": 0}
        for _ in range(3):
            assert client.post("/v1/chat/completions", json=asked).status_code == 200
        assert len(server.asked) == 1
        there = Components(settings)
        erase(there, there.collections.get("x"), [file_id], by="test", compact=False)
        there.close()
        deadline = time.monotonic() + 30
        while len(server.asked) == 1:
            assert time.monotonic() < deadline, "answers in memory outlive the document"
            client.post("/v1/chat/completions", json=asked)
            time.sleep(0.05)


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

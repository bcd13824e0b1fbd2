"""Files and vector stores in OpenAI's shapes, on both databases."""

from __future__ import annotations

import time
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.work.kinds import open_worker

STORES = "/v1/vector_stores"


@pytest.fixture
def client(settings: Any, open_client: Any) -> TestClient:
    """On SQLite and on PostgreSQL."""
    started: TestClient = open_client(settings)
    return started


def upload(client: TestClient, name: str, content: bytes) -> str:
    form = {"files": {"file": (name, content)}, "data": {"purpose": "assistants"}}
    response = client.post("/v1/files", **form)
    assert response.status_code == 200, response.text
    return str(response.json()["id"])


def settled(client: TestClient, url: str) -> Any:
    """Poll until nothing is in progress."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        state = client.get(url).json()
        if state["status"] != "in_progress":
            return state
        time.sleep(0.02)
    raise AssertionError(f"{url} is still in progress")


def test_a_file_comes_back_byte_for_byte_until_it_is_deleted(client: TestClient) -> None:
    content = bytes(range(256)) * 20_000  # past what is spooled in memory
    file_id = upload(client, "dir/../x y.bin", content)
    stored = client.get(f"/v1/files/{file_id}").json()
    assert stored["filename"] == "x y.bin"
    assert stored["bytes"] == len(content)
    assert (stored["object"], stored["purpose"], stored["status"]) == (
        "file",
        "assistants",
        "processed",
    )
    served = client.get(f"/v1/files/{file_id}/content")
    assert served.content == content
    assert served.headers["content-type"] == "application/octet-stream"
    assert served.headers["content-disposition"].startswith("attachment")
    gone = client.delete(f"/v1/files/{file_id}").json()
    assert gone == {"id": file_id, "object": "file", "deleted": True}
    for response in (
        client.get(f"/v1/files/{file_id}"),
        client.get(f"/v1/files/{file_id}/content"),
        client.delete(f"/v1/files/{file_id}"),
    ):
        assert response.status_code == 404


def test_files_are_listed_page_by_page(client: TestClient) -> None:
    ids = [upload(client, f"{number}.txt", b"text") for number in range(5)]
    seen: list[str] = []
    after = None
    while True:
        query = {"limit": 2, "order": "asc", **({"after": after} if after else {})}
        page = client.get("/v1/files", params=query).json()
        seen += [item["id"] for item in page["data"]]
        assert (page["first_id"], page["last_id"]) == (seen[-len(page["data"])], seen[-1])
        after = page["last_id"]
        if not page["has_more"]:
            break
    assert seen == ids
    newest = client.get("/v1/files", params={"purpose": "assistants"}).json()["data"]
    assert [item["id"] for item in newest] == ids[::-1]
    assert client.get("/v1/files", params={"purpose": "batch"}).json()["data"] == []


@pytest.mark.parametrize(
    "form",
    [
        {"purpose": "nonsense"},
        {},
        {"purpose": "assistants", "expires_after[anchor]": "created_at"},
    ],
)
def test_an_upload_that_asks_for_what_there_is_not_is_a_400(client: TestClient, form: Any) -> None:
    response = client.post("/v1/files", files={"file": ("a.txt", b"text")}, data=form)
    assert response.status_code == 400
    assert client.get("/v1/files").json()["data"] == []


def test_a_store_is_created_read_changed_and_deleted(client: TestClient) -> None:
    made = client.post(
        STORES,
        json={"name": "handbook", "metadata": {"team": "hr"}, "description": "All rules"},
    )
    store = made.json()
    assert made.headers["x-ragstone-sequence"] == "0"
    assert store["object"] == "vector_store"
    assert store["id"].startswith("vs_")
    assert (store["status"], store["usage_bytes"]) == ("completed", 0)
    assert set(store["file_counts"]) == {"in_progress", "completed", "failed", "cancelled", "total"}
    assert (store["metadata"], store["description"]) == ({"team": "hr"}, "All rules")
    by_id, by_name = (client.get(f"{STORES}/{key}").json() for key in (store["id"], "handbook"))
    assert by_id == by_name == store
    changed = client.post(
        f"{STORES}/{store['id']}", json={"name": "rules", "metadata": {"team": "it"}}
    ).json()
    assert (changed["name"], changed["metadata"]) == ("rules", {"team": "it"})
    assert changed["description"] == "All rules"
    assert client.get("/v1/models/rag/rules").status_code == 200
    gone = client.delete(f"{STORES}/{store['id']}").json()
    assert gone == {"id": store["id"], "object": "vector_store.deleted", "deleted": True}
    assert client.get(f"{STORES}/{store['id']}").status_code == 404


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"name": "a/b"}, 400, "name"),
        ({"name": ""}, 400, "name"),
        (
            {"name": "x", "expires_after": {"anchor": "last_active_at", "days": 1}},
            400,
            "expires_after",
        ),
        ({"name": "x", "metadata": {"a": 1}}, 400, "metadata.a"),
        ({"name": "x", "file_ids": ["file-nothing"]}, 404, None),
        ({"name": "taken"}, 409, None),
        (
            {
                "name": "x",
                "chunking_strategy": {
                    "type": "static",
                    "static": {"max_chunk_size_tokens": 4096, "chunk_overlap_tokens": 0},
                },
            },
            400,
            "chunking_strategy",
        ),
    ],
)
def test_a_store_that_cannot_be_is_refused_and_not_there(
    client: TestClient, body: Any, status: int, param: str | None
) -> None:
    client.post(STORES, json={"name": "taken"})
    response = client.post(STORES, json=body)
    assert response.status_code == status, response.text
    assert response.json()["error"]["param"] == param
    assert [store["name"] for store in client.get(STORES).json()["data"]] == ["taken"]


def test_stores_are_listed_forwards_and_backwards(client: TestClient) -> None:
    ids = [client.post(STORES, json={"name": f"s{n}"}).json()["id"] for n in range(5)]

    def listed(**query: Any) -> list[str]:
        return [store["id"] for store in client.get(STORES, params=query).json()["data"]]

    assert listed() == ids[::-1]
    assert listed(order="asc", limit=2) == ids[:2]
    assert listed(order="asc", after=ids[1], limit=2) == ids[2:4]
    assert listed(order="asc", before=ids[3], limit=2) == ids[1:3]
    assert client.get(STORES, params={"limit": 0}).status_code == 400
    assert client.get(STORES, params={"after": "vs_nothing"}).status_code == 404


def test_files_given_with_the_store_are_read_as_it_says(client: TestClient) -> None:
    file_id = upload(client, "leave.txt", b"Employees have 27 days of leave each year. " * 40)
    static = {"max_chunk_size_tokens": 32, "chunk_overlap_tokens": 4}
    strategy = {"type": "static", "static": static}
    store = client.post(
        STORES, json={"name": "x", "file_ids": [file_id], "chunking_strategy": strategy}
    ).json()
    assert store["file_counts"]["total"] == 1
    attached = settled(client, f"{STORES}/x/files/{file_id}")
    assert attached["status"] == "completed"
    assert attached["chunking_strategy"] == strategy
    assert client.get(f"{STORES}/x").json()["usage_bytes"] == attached["usage_bytes"] == 43 * 40
    other = {"type": "static", "static": {**static, "max_chunk_size_tokens": 64}}
    body = {"file_id": file_id, "chunking_strategy": other}
    assert client.post(f"{STORES}/x/files", json=body).status_code == 400


def test_a_file_that_cannot_be_read_says_why(client: TestClient) -> None:
    client.post(STORES, json={"name": "x"})
    for content, code in (
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "unsupported_file"),
        (b"", "invalid_file"),
    ):
        file_id = upload(client, "file.txt", content)
        client.post(f"{STORES}/x/files", json={"file_id": file_id})
        failed = settled(client, f"{STORES}/x/files/{file_id}")
        assert failed["status"] == "failed"
        assert failed["last_error"]["code"] == code
        assert failed["last_error"]["message"]
    counts = client.get(f"{STORES}/x").json()["file_counts"]
    assert (counts["failed"], counts["total"]) == (2, 2)
    listed = client.get(f"{STORES}/x/files", params={"filter": "failed"}).json()["data"]
    assert len(listed) == 2
    assert client.get(f"{STORES}/x/files", params={"filter": "completed"}).json()["data"] == []


def test_attributes_are_replaced_and_filtered_by_at_once(client: TestClient, add_text: Any) -> None:
    client.post(STORES, json={"name": "x"})
    file_id = add_text(client, "x", "a.txt", "Parking costs 40 euros.", year=2020)
    url = f"{STORES}/x/files/{file_id}"
    changed = client.post(url, json={"attributes": {"year": 2024, "open": True}})
    assert changed.json()["attributes"] == {"year": 2024, "open": True}

    def found(year: int) -> int:
        chosen = {"type": "eq", "key": "year", "value": year}
        body = {"query": "parking", "filters": chosen}
        return len(client.post(f"{STORES}/x/search", json=body).json()["data"])

    assert (found(2024), found(2020)) == (1, 0)
    nested = client.post(url, json={"attributes": {"a": {"b": 1}}})
    assert nested.status_code == 400


def test_a_detached_file_is_not_found_any_more_but_stays_uploaded(
    client: TestClient, add_text: Any
) -> None:
    client.post(STORES, json={"name": "x"})
    file_id = add_text(client, "x", "a.txt", "Parking costs 40 euros.")
    gone = client.delete(f"{STORES}/x/files/{file_id}")
    assert gone.json() == {"id": file_id, "object": "vector_store.file.deleted", "deleted": True}
    sequence = int(gone.headers["x-ragstone-sequence"])
    body = {"query": "parking", "min_sequence": sequence}
    assert client.post(f"{STORES}/x/search", json=body).json()["data"] == []
    assert client.get(f"{STORES}/x/files/{file_id}").status_code == 404
    assert client.get(f"/v1/files/{file_id}").status_code == 200


def test_search_answers_in_openai_s_page_with_our_spans(client: TestClient, add_text: Any) -> None:
    client.post(STORES, json={"name": "x"})
    parking = "Parking costs 40 euros. Bicycles park for free."
    ids = [add_text(client, "x", "a.txt", parking, floor=1)]
    ids.append(add_text(client, "x", "b.txt", "The canteen opens at noon.", floor=2))
    page = client.post(f"{STORES}/x/search", json={"query": "parking bicycles"}).json()
    assert page["object"] == "vector_store.search_results.page"
    assert page["search_query"] == ["parking bicycles"]
    assert (page["has_more"], page["next_page"]) == (False, None)
    best = page["data"][0]
    assert (best["file_id"], best["filename"]) == (ids[0], "a.txt")
    assert best["attributes"]["floor"] == 1
    assert best["content"] == [
        {"type": "text", "text": parking[best["start_char"] : best["end_char"]]}
    ]
    both = client.post(
        f"{STORES}/x/search",
        json={"query": ["parking bicycles", "canteen noon"], "max_num_results": 2},
    ).json()["data"]
    assert {found["file_id"] for found in both} == set(ids)
    options = {"ranker": "auto", "score_threshold": best["score"]}
    high = client.post(
        f"{STORES}/x/search", json={"query": "parking bicycles", "ranking_options": options}
    ).json()["data"]
    assert [found["score"] >= best["score"] for found in high] == [True]


def test_a_batch_is_followed_to_its_end(client: TestClient) -> None:
    client.post(STORES, json={"name": "x"})
    good = [upload(client, f"{n}.txt", f"Rule {n} is written here.".encode()) for n in range(3)]
    bad = upload(client, "bad.txt", b"")
    files = [{"file_id": file_id, "attributes": {"n": n}} for n, file_id in enumerate(good)]
    made = client.post(f"{STORES}/x/file_batches", json={"files": [*files, {"file_id": bad}]})
    batch = made.json()
    assert batch["object"] == "vector_store.files_batch"
    assert batch["file_counts"]["total"] == 4
    done = settled(client, f"{STORES}/x/file_batches/{batch['id']}")
    assert done["status"] == "completed"
    assert (done["file_counts"]["completed"], done["file_counts"]["failed"]) == (3, 1)
    url = f"{STORES}/x/file_batches/{batch['id']}/files"
    page = client.get(url, params={"filter": "completed", "order": "asc", "limit": 2}).json()
    assert [item["id"] for item in page["data"]] == good[:2]
    assert [item["attributes"]["n"] for item in page["data"]] == [0, 1]
    rest = client.get(url, params={"filter": "completed", "order": "asc", "after": good[1]}).json()
    assert [item["id"] for item in rest["data"]] == good[2:]
    other = client.post(STORES, json={"name": "other"}).json()["id"]
    assert client.get(f"{STORES}/{other}/file_batches/{batch['id']}").status_code == 404


def test_a_cancelled_batch_leaves_what_was_not_read_unread(client: TestClient) -> None:
    client.post(STORES, json={"name": "x"})
    components = client.app.state.components
    components.worker.stop()  # so that nothing is read meanwhile
    ids = [upload(client, f"{n}.txt", b"A rule.") for n in range(3)]
    batch = client.post(f"{STORES}/x/file_batches", json={"file_ids": ids}).json()
    assert batch["status"] == "in_progress"
    url = f"{STORES}/x/file_batches/{batch['id']}"
    cancelled = client.post(f"{url}/cancel").json()
    assert cancelled["status"] == "cancelled"
    assert cancelled["file_counts"]["cancelled"] == 3
    assert client.get(f"{STORES}/x").json()["file_counts"]["cancelled"] == 3
    assert components.documents.pending() == []
    again = open_worker(components, lazy=True)
    again.start()
    [job] = components.jobs.list()
    assert components.jobs.wait(job.id).result == {}
    again.stop()
    assert client.get(url).json()["file_counts"]["cancelled"] == 3


@pytest.mark.parametrize(
    "body",
    [{}, {"file_ids": ["file-a"], "files": [{"file_id": "file-a"}]}, {"file_ids": []}],
)
def test_a_batch_of_nothing_is_a_400(client: TestClient, body: Any) -> None:
    client.post(STORES, json={"name": "x"})
    assert client.post(f"{STORES}/x/file_batches", json=body).status_code == 400


def test_a_batch_with_an_unknown_file_attaches_nothing(client: TestClient) -> None:
    client.post(STORES, json={"name": "x"})
    known = upload(client, "a.txt", b"A rule.")
    body = {"file_ids": [known, "file-unknown"]}
    assert client.post(f"{STORES}/x/file_batches", json=body).status_code == 404
    assert client.get(f"{STORES}/x").json()["file_counts"]["total"] == 0


def test_the_same_file_in_two_stores_is_paged_in_each(client: TestClient) -> None:
    ids = [upload(client, f"{n}.txt", b"A rule.") for n in range(4)]
    for name, order in (("x", ids), ("y", ids[::-1])):
        client.post(STORES, json={"name": name})
        for file_id in order:
            client.post(f"{STORES}/{name}/files", json={"file_id": file_id})
    for name, order in (("x", ids), ("y", ids[::-1])):
        query = {"order": "asc", "after": order[1]}
        page = client.get(f"{STORES}/{name}/files", params=query).json()
        assert [item["id"] for item in page["data"]] == order[2:]

"""Erasing over HTTP and in the terminal: nothing finds what was deleted; receipts can be read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from service.cli.entry import app

CANARY = "quetzalqvw7731"


def said_everywhere(client: TestClient) -> str:
    """What every route that reads says, asked for the canary itself."""
    question = f"What of {CANARY}?"
    answers = [
        client.get("/v1/files"),
        client.get("/v1/vector_stores"),
        client.get("/v1/vector_stores/handbook/files?limit=100"),
        client.get("/v1/erasures"),
        client.get("/v1/jobs"),
        client.post("/v1/search", json={"query": question, "collection": "handbook"}),
        client.post("/v1/answers", json={"question": question, "collection": "handbook"}),
        client.post("/v1/vector_stores/handbook/search", json={"query": question}),
    ]
    for each in client.get("/v1/vector_stores/handbook/files?limit=100").json()["data"]:
        path = f"/v1/vector_stores/handbook/files/{each['id']}/content"
        answers += [client.get(path), client.get(f"/v1/files/{each['id']}/content")]
    assert {answer.status_code for answer in answers} == {200}
    return "\n".join(answer.text.replace(question, "") for answer in answers)


@pytest.mark.parametrize("way", ["detach", "delete file", "erase", "where"])
def test_no_route_finds_what_was_deleted(
    way: str, client: TestClient, handbook: str, add_text: Callable[..., str]
) -> None:
    text = f"The {CANARY} is hidden in the moat. " * 20
    file_id = add_text(client, handbook, f"{CANARY}.txt", text, owner=CANARY)
    assert CANARY in said_everywhere(client)
    within = f"/v1/vector_stores/{handbook}/files"
    if way == "detach":
        assert client.delete(f"{within}/{file_id}").json() == {
            "id": file_id,
            "object": "vector_store.file.deleted",
            "deleted": True,
        }
        assert client.delete(f"/v1/files/{file_id}").status_code == 200
    elif way == "delete file":
        gone = client.delete(f"/v1/files/{file_id}").json()
        assert gone == {"id": file_id, "object": "file", "deleted": True}
    else:
        where = {"type": "eq", "key": "owner", "value": CANARY}
        body = {"documents": [file_id]} if way == "erase" else {"where": where}
        receipt = client.post(f"/v1/collections/{handbook}/erase", json=body)
        assert receipt.status_code == 200, receipt.text
        assert receipt.json()["documents"][0]["id"] == file_id
    assert CANARY not in said_everywhere(client)
    for path in (f"/v1/files/{file_id}", f"{within}/{file_id}", f"{within}/{file_id}/content"):
        assert client.get(path).status_code == 404
    receipts = client.get("/v1/erasures").json()["data"]
    assert {each["id"] for receipt in receipts for each in receipt["documents"]} == {file_id}
    shown = client.get(f"/v1/erasures/{receipts[0]['id']}").json()
    assert (shown["state"], shown["snapshots"]) == ("removed", [])


def test_erasing_what_is_not_there_or_not_chosen_is_refused(
    client: TestClient, handbook: str
) -> None:
    path = f"/v1/collections/{handbook}/erase"
    assert client.post(path, json={"documents": ["file-none"]}).status_code == 404
    assert client.post(path, json={}).status_code == 400
    assert client.post(path, json={"tenant": "nobody"}).status_code == 404
    unknown = {"type": "eq", "key": "yaer", "value": 2024}
    refused = client.post(path, json={"where": unknown})
    assert refused.status_code == 400
    assert "did you mean 'year'?" in refused.json()["error"]["message"]
    assert client.get("/v1/erasures/erasure-none").status_code == 404
    assert client.post("/v1/collections/none/compact").status_code == 404


def test_compaction_is_a_job(client: TestClient, handbook: str) -> None:
    job = client.post(f"/v1/collections/{handbook}/compact").json()
    assert job["job"] == "compact"


def test_terminal_erases_and_shows_the_receipt(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("RAGSTONE_RETRIEVAL__EMBEDDER", "hashing")
    monkeypatch.setenv("RAGSTONE_DATA_FOLDER", str(tmp_path / "data"))
    for number in range(3):
        (tmp_path / f"wall{number}.txt").write_text(f"Wall {number} of the {CANARY}.")

    def run(*words: str) -> Any:
        result = CliRunner().invoke(app, [*words, "--json"])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    paths = [str(tmp_path / f"wall{number}.txt") for number in range(3)]
    run("ingest", *paths, "-c", "walls", "--tenant", "acme", "--allow", "group:board")
    [*_, document] = run("collections", "documents", "list", "-c", "walls")
    assert (document["tenant"], document["allow"]) == ("acme", ["group:board"])
    [shared] = run("collections", "documents", "share", paths[0], "-c", "walls")
    assert (shared["tenant"], shared["allow"]) == ("acme", [])
    receipt = run("collections", "erase", "walls", paths[0], "--yes")
    assert (receipt["state"], receipt["removed"]["documents"]) == ("compacted", 1)
    rest = run("collections", "erase", "walls", "--tenant", "acme", "--yes", "--no-compact")
    assert (rest["state"], len(rest["documents"])) == ("removed", 2)
    assert run("collections", "compact", "walls")["receipts"] == [rest["id"]]
    assert run("collections", "receipts", rest["id"])["state"] == "compacted"
    assert [each["id"] for each in run("collections", "receipts")] == [rest["id"], receipt["id"]]
    held = [
        path
        for path in (tmp_path / "data").rglob("*")
        if path.is_file() and CANARY.encode() in path.read_bytes().lower()
    ]
    assert held == []
    again = CliRunner().invoke(app, ["collections", "erase", "walls", "--tenant", "acme", "--yes"])
    assert again.exit_code == 1

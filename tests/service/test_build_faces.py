"""Builds at the terminal, over HTTP and as jobs."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from starlette.testclient import TestClient
from typer.testing import CliRunner

from infra.database.schema import chunk
from infra.settings import Settings
from retrieval.recipe import without_secrets
from service.cli.entry import app
from service.wiring import Components


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RAGSTONE_RETRIEVAL__EMBEDDER", "hashing")
    monkeypatch.setenv("RAGSTONE_RETRIEVAL__CHUNK_TOKENS", "60")
    monkeypatch.setenv("RAGSTONE_RETRIEVAL__CHUNK_OVERLAP_TOKENS", "10")
    folder = tmp_path / "documents"
    folder.mkdir()
    for number in range(4):
        lines = (f"Gate {number} has bolt {row}." for row in range(30))
        (folder / f"gate{number}.md").write_text(f"# Gate {number}\n\n{' '.join(lines)}")
    return folder


def run(*words: str, code: int = 0) -> Any:
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
    return result


def finished(client: TestClient, job: dict[str, Any]) -> dict[str, Any]:
    deadline = time.monotonic() + 60
    while job["state"] not in {"succeeded", "failed", "cancelled"}:
        assert time.monotonic() < deadline, job
        time.sleep(0.05)
        job = client.get(f"/v1/jobs/{job['id']}").json()
    assert job["state"] == "succeeded", job
    return job


def run_json(*words: str) -> Any:
    return json.loads(run(*words, "--json").stdout)


def test_embedder_is_changed_and_changed_back_at_the_terminal(folder: Path) -> None:
    run("ingest", str(folder), "-c", "gates")
    [first] = run_json("collections", "builds", "gates")
    assert (first["state"], first["dimension"], first["missing"]) == ("live", 256, 0)
    begun = run_json(
        *("collections", "rebuild", "gates"),
        *("--embedder", "hashing", "--embedder-option", "dimension=64"),
    )
    assert (begun["state"], begun["documents"], begun["missing"]) == ("building", 4, 0)
    swapped = run_json("collections", "swap", "gates", "--expect", str(first["id"]))
    assert (swapped["live"], swapped["standby"]) == (begun["id"], first["id"])
    assert swapped["verdict"]["passed"]
    assert run_json("collections", "show", "gates")["recipe"]["dimension"] == 64
    assert run_json("search", "gate 2 bolt 7", "-c", "gates")
    back = run_json("collections", "rollback", "gates")
    assert back["live"] == first["id"]
    run("collections", "retire", "gates", str(begun["id"]), "--yes")
    states = [each["state"] for each in run_json("collections", "builds", "gates")]
    assert states == ["live", "reclaimed"]
    kinds = [each["kind"] for each in run_json("collections", "builds", "gates", "--history")]
    assert kinds == ["started", "swapped", "rolled_back", "retired"]


def test_words_at_the_terminal_say_what_to_do_next(folder: Path) -> None:
    run("ingest", str(folder), "-c", "gates")
    assert "no build to swap in" in run("collections", "swap", "gates", code=1).stderr
    said = run("collections", "rebuild", "gates", "--chunk-tokens", "100").stdout
    assert "ragstone collections swap gates" in said
    assert "answers, build 1 stands by" in run("collections", "swap", "gates").stdout
    assert "swapped" in run("collections", "builds", "gates", "--history").stdout
    assert "standby" in run("collections", "builds", "gates").stdout


def test_rebuild_left_to_the_service_swaps_itself_in(
    client: TestClient, add_text: Callable[..., str]
) -> None:
    store = client.post("/v1/vector_stores", json={"name": "gates"}).json()["id"]
    for number in range(3):
        add_text(client, store, f"gate{number}.txt", f"Gate {number} opens at {number}. " * 20)
    where = f"/v1/collections/{store}/builds"
    [live] = client.get(where).json()["data"]
    started = client.post(where, json={"chunk_tokens": 100, "swap": True})
    assert started.status_code == 200, started.text
    job = finished(client, started.json()["job"])
    assert job["result"]["live"] == started.json()["build"]["id"]
    found = client.post("/v1/search", json={"collection": "gates", "query": "gate 2"})
    assert found.status_code == 200, found.text
    back = client.post(f"{where}/rollback", json={"expect": job["result"]["live"]})
    assert back.json()["live"] == live["id"]
    assert client.delete(f"{where}/{live['id']}").status_code == 409
    assert client.delete(f"{where}/{job['result']['live']}").json()["state"] == "reclaimed"
    kinds = [each["kind"] for each in client.get(f"{where}/history").json()["data"]]
    assert kinds == ["started", "swapped", "rolled_back", "retired"]
    assert client.get("/v1/collections/none/builds").status_code == 404


def test_snapshot_and_restore_are_jobs_of_the_service(
    client: TestClient, add_text: Callable[..., str]
) -> None:
    store = client.post("/v1/vector_stores", json={"name": "gates"}).json()["id"]
    add_text(client, store, "gate.txt", "The gate opens at seven.")
    taken = client.post(f"/v1/collections/{store}/snapshots", json={"name": "gates"})
    artifact = finished(client, taken.json())["result"]["artifact"]
    assert artifact == "collection/gates@v1"
    body = {"artifact": artifact, "name": "again"}
    finished(client, client.post("/v1/collections/restore", json=body).json())
    asked = {"collection": "again", "query": "when does the gate open"}
    [found] = client.post("/v1/search", json=asked).json()["passages"]
    assert found["text"] == "The gate opens at seven."
    none = {"artifact": "collection/none", "name": "other"}
    assert client.post("/v1/collections/restore", json=none).status_code == 404


def test_service_answers_every_question_while_another_process_swaps(
    client: TestClient,
    add_text: Callable[..., str],
    fast_settings: Callable[..., Settings],
    open_components: Callable[[Settings], Components],
) -> None:
    store = client.post("/v1/vector_stores", json={"name": "gates"}).json()["id"]
    for number in range(4):
        text = " ".join(f"Gate {number} has bolt {row}." for row in range(60))
        add_text(client, store, f"gate{number}.txt", text)
    other = open_components(fast_settings())
    whole = other.collections.get("gates")
    recipe = other.recipe(embedder="hashing", embedder_options={"dimension": 64}, chunk_tokens=120)
    begun = other.builds.start(whole, recipe)
    list(other.builder.fill(whole, begun))
    lengths = {}
    with other.database.read() as connection:
        for number in (whole.build_id, begun.id):
            rows = connection.execute(select(chunk.c.text).where(chunk.c.build_id == number))
            lengths[number] = set(rows.scalars())
    answers: list[tuple[int, set[str]]] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            body = {"collection": "gates", "query": "which gate has bolt 7", "limit": 5}
            answer = client.post("/v1/search", json=body)
            found = {one["text"] for one in answer.json().get("passages", [])}
            answers.append((answer.status_code, found))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        other.builds.swap(whole, evaluate=other.evaluate)
        for _ in range(6):
            other.builds.rollback(whole)
            time.sleep(0.1)
        other.builds.retire(whole, whole.build_id)
        time.sleep(0.3)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert {status for status, _ in answers} == {200}
    assert all(found for _, found in answers), "an empty answer"
    mixed = [found for _, found in answers if not any(found <= own for own in lengths.values())]
    assert mixed == []
    assert {any(found <= lengths[begun.id] for _, found in answers), len(answers) > 10} == {True}


def test_collection_is_backed_up_and_restored_at_the_terminal(folder: Path) -> None:
    run("ingest", str(folder), "-c", "gates")
    stored = run_json("collections", "snapshot", "gates", "--as", "backup")
    assert stored["artifact"] == "collection/backup@v1"
    assert (
        "Restored 'again': 4 documents"
        in run("collections", "restore", "collection/backup", "again").stdout
    )
    assert "bolt 7" in run("search", "gate 2 bolt 7", "-c", "again").stdout


def test_recipe_keeps_no_secret() -> None:
    options = {"model": "m", "api_key": "k", "AccessToken": "t", "dimension": 3}
    assert without_secrets(options) == {"model": "m", "dimension": 3}

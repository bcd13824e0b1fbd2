"""Builds change places in a running service under constant questions: none fails, none is mixed."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from running_server import serving

DOCUMENTS = 6
ASKERS = 3
QUESTION = "which gate has bolt 7"


@pytest.mark.parametrize(
    "rollbacks",
    [
        pytest.param(6, id="short"),
        pytest.param(400, id="long", marks=[pytest.mark.slow, pytest.mark.timeout(3600)]),
    ],
)
def test_no_question_fails_and_no_answer_is_mixed_while_a_service_swaps(
    rollbacks: int, tmp_path: Path
) -> None:
    with serving(tmp_path) as client:
        client.post("/vector_stores", json={"name": "gates"}).raise_for_status()
        for number in range(DOCUMENTS):
            _add(client, number)
        builds = "/collections/gates/builds"
        old = _texts(client, limit=100)
        load = Load(client)
        with load:
            body = {"chunk_tokens": 80, "chunk_overlap_tokens": 0, "swap": True}
            _finish(client, client.post(builds, json=body).raise_for_status().json()["job"])
            new = _texts(client, limit=100)
            for _ in range(rollbacks):
                client.post(f"{builds}/rollback", json={}).raise_for_status()
                load.wait_for_answers()
        live = _texts(client, limit=100)
    assert not old & new
    assert live == (old if rollbacks % 2 else new)
    assert {status for status, _ in load.answers} == {200}
    answered = [
        "old" if found <= old else "new" if found <= new else found for _, found in load.answers
    ]
    assert all(found for _, found in load.answers)
    assert set(answered) == {"old", "new"}


class Load:
    """Questions asked without a pause until the block ends, and their answers."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(ASKERS)]
        self.answers: list[tuple[int, frozenset[str]]] = []

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for_answers(self) -> None:
        """Let every thread finish what it asked and ask once more."""
        enough = len(self.answers) + 2 * ASKERS
        while len(self.answers) < enough:
            assert all(thread.is_alive() for thread in self._threads)
            time.sleep(0.002)

    def _ask(self) -> None:
        while not self._stop.is_set():
            self.answers.append(_answer(self._client, limit=5))


def _texts(client: httpx.Client, *, limit: int) -> frozenset[str]:
    status, texts = _answer(client, limit=limit)
    assert status == 200
    return texts


def _answer(client: httpx.Client, *, limit: int) -> tuple[int, frozenset[str]]:
    answer = client.post("/search", json={"collection": "gates", "query": QUESTION, "limit": limit})
    return answer.status_code, frozenset(
        passage["text"] for passage in answer.json().get("passages", [])
    )


def _add(client: httpx.Client, number: int) -> None:
    text = " ".join(f"Gate {number} has bolt {row}." for row in range(90)).encode()
    files, data = {"file": (f"gate{number}.txt", text)}, {"purpose": "assistants"}
    file_id = client.post("/files", files=files, data=data).raise_for_status().json()["id"]
    url = "/vector_stores/gates/files"
    client.post(url, json={"file_id": file_id}).raise_for_status()
    while (state := client.get(f"{url}/{file_id}").json()["status"]) == "in_progress":
        time.sleep(0.02)
    assert state == "completed"


def _finish(client: httpx.Client, job: dict[str, Any]) -> None:
    while not (state := client.get(f"/jobs/{job['id']}").json())["finished_at"]:
        time.sleep(0.02)
    assert state["state"] == "succeeded", state

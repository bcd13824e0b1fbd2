"""The service is killed while it reads attached files; each is read in the end, and once."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from running_server import serving

FILES = 60
KILLS = 2


def wait_for(client: httpx.Client, url: str, done: Any) -> Any:
    deadline = time.monotonic() + 90
    while not done(state := client.get(url).json()):
        assert time.monotonic() < deadline, state
        time.sleep(0.02)
    return state


def upload(client: httpx.Client, number: int) -> str:
    text = f"Rule {number}: the door closes at {number}. ".encode() * 50
    files, data = {"file": (f"{number}.txt", text)}, {"purpose": "assistants"}
    return str(client.post("/files", files=files, data=data).json()["id"])


def test_a_killed_service_reads_the_rest_after_its_restart(tmp_path: Path) -> None:
    chance = random.Random(7)
    url = ""
    for kill in range(KILLS + 1):
        with serving(tmp_path) as client:
            if not url:
                client.post("/vector_stores", json={"name": "rules"})
                ids = [upload(client, number) for number in range(FILES)]
                body = {"file_ids": ids}
                batch = client.post("/vector_stores/rules/file_batches", json=body).json()
                url = f"/vector_stores/rules/file_batches/{batch['id']}"
            if kill < KILLS:
                read = client.get(url).json()["file_counts"]["completed"]
                stop_at = read + chance.randint(3, 12)
                wait_for(client, url, lambda state: state["file_counts"]["completed"] >= stop_at)  # noqa: B023
                continue
            state = wait_for(client, url, lambda state: state["status"] != "in_progress")
            assert (state["status"], state["file_counts"]["completed"]) == ("completed", FILES)
            jobs = client.get("/jobs", params={"job": "ingest_attached", "limit": 100}).json()
            crashes = [job["crashes"] for job in jobs["data"]]
            assert sum(crashes) == KILLS
            found = client.post(
                "/vector_stores/rules/search", json={"query": "closes at 17", "max_num_results": 50}
            ).json()["data"]
            spans = Counter((each["file_id"], each["start_char"]) for each in found)
            assert max(spans.values()) == 1
            assert {each["version"] for each in found} == {1}, "read once, and committed once"


@pytest.mark.slow
def test_a_service_without_a_worker_leaves_the_reading_to_one(tmp_path: Path) -> None:
    with serving(tmp_path, RAGSTONE_JOBS__IN_PROCESS="false") as client:
        client.post("/vector_stores", json={"name": "rules"})
        body = {"file_id": upload(client, 1)}
        client.post("/vector_stores/rules/files", json=body)
        [job] = client.get("/jobs").json()["data"]
        time.sleep(1)
        assert client.get(f"/jobs/{job['id']}").json()["state"] == "queued"
        environment = {
            **os.environ,
            "RAGSTONE_DATA_FOLDER": str(tmp_path / "data"),
            "RAGSTONE_RETRIEVAL__EMBEDDER": "hashing",
        }
        worker = subprocess.Popen(
            [Path(sys.executable).parent / "ragstone", "worker"], env=environment
        )
        try:
            done = wait_for(client, f"/jobs/{job['id']}", lambda state: state["finished_at"])
            assert (done["state"], done["result"]) == ("succeeded", {"completed": 1})
        finally:
            worker.kill()
            worker.wait(10)

"""`ragstone jobs`, `ragstone worker` and `ragstone ingest --background`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from infra.settings import load_settings
from service.cli.entry import app
from service.wiring import Components

pytestmark = pytest.mark.usefixtures("migrated_here")

RAGSTONE = Path(sys.executable).parent / "ragstone"


@pytest.fixture(autouse=True)
def _no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGSTONE_RETRIEVAL__EMBEDDER", "hashing")


@pytest.fixture
def parts() -> Iterator[Components]:
    components = Components(load_settings())
    yield components
    components.close()


@pytest.fixture
def start_worker() -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen([RAGSTONE, "worker", "--slots", "2"], env=os.environ))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait(10)


def run(*words: str, code: int = 0) -> Any:
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
    return result


def run_json(*words: str, code: int = 0) -> Any:
    return json.loads(run(*words, "--json", code=code).stdout)


def test_a_folder_left_to_a_worker_is_read_and_the_worker_stops_when_asked(
    parts: Components, start_worker: Any
) -> None:
    Path("notes").mkdir()
    for number in range(3):
        Path(f"notes/{number}.txt").write_text(f"Note {number}: nothing to see.")
    queued = run("ingest", "notes", "--background", "-c", "notes", "--metadata", "year=2024")
    assert "No worker runs now" in queued.stderr
    [job] = run_json("jobs", "list", "--state", "queued")
    assert job["arguments"]["paths"] == [str(Path("notes").resolve())]
    process = start_worker()
    assert "succeeded" in run("jobs", "watch", job["id"]).stdout
    assert run_json("jobs", "show", job["id"])["result"]["added"] == 3
    [alive] = run_json("jobs", "workers")
    assert alive["slots"] == 2
    page = parts.documents.list(parts.collections.get("notes"))
    assert {item.metadata["year"] for item in page.items} == {2024}
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    assert run_json("jobs", "workers") == []
    assert "ragstone worker" in run("jobs", "workers").stderr


def test_a_path_that_does_not_exist_is_no_job() -> None:
    assert "No file or folder" in run("ingest", "nowhere", "--background", code=1).stderr
    assert run_json("jobs", "list") == []


def test_jobs_are_started_by_name_listed_cancelled_and_retried(parts: Components) -> None:
    assert "did you mean 'ingest_attached'" in run("jobs", "start", "ingest_atached", code=1).stderr
    assert "paths" in run("jobs", "start", "ingest_folders", "collection=x", code=1).stderr
    started = run_json(
        "jobs", "start", "ingest_folders", "collection=x", 'paths=["a", "b"]', "--key", "k"
    )
    assert started["arguments"] == {"collection": "x", "paths": ["a", "b"]}
    again = run_json(
        "jobs", "start", "ingest_folders", "collection=x", 'paths=["a", "b"]', "--key", "k"
    )
    assert again["id"] == started["id"]
    assert started["id"] in run("jobs", "list").stdout
    assert run_json("jobs", "list", "--name", "other") == []
    assert run_json("jobs", "cancel", started["id"])["state"] == "cancelled"
    assert "is cancelled" in run("jobs", "watch", started["id"], code=1).stdout
    assert run_json("jobs", "retry", started["id"], "--from-scratch")["state"] == "queued"
    refused = run("jobs", "retry", started["id"], code=1)
    assert "is queued" in refused.stderr
    assert "No job 'job_x'" in run("jobs", "show", "job_x", code=1).stderr
    names = [row["name"] for row in run_json("jobs", "kinds")]
    assert {"ingest_attached", "ingest_folders"} <= set(names)
    assert "ingest_folders" in run("jobs", "kinds").stdout
    with pytest.raises(SystemExit):
        app(["jobs", "start", "ingest_folders", "nonsense"])


def test_what_was_given_up_is_in_the_dead_letters_with_its_log(
    parts: Components, start_worker: Any
) -> None:
    assert "No job was given up" in run("jobs", "dead").stderr
    started = run_json("jobs", "start", "ingest_folders", "collection=gone", "paths=[]")
    start_worker()
    failed = run("jobs", "watch", started["id"], code=1)
    assert "No collection 'gone'" in failed.stdout
    [dead] = run_json("jobs", "dead")
    assert dead["id"] == started["id"]
    assert "gone" in run("jobs", "dead").stdout
    lines = run("jobs", "logs", started["id"], "--follow", "--json").stdout.splitlines()
    assert "given up" in json.loads(lines[-1])["message"]
    assert "given up" in run("jobs", "logs", started["id"]).stdout
    assert "failed" in run("jobs", "show", started["id"]).stdout


def test_schedules_are_added_paused_resumed_and_removed() -> None:
    words = ("nightly", "ingest_folders", "0 3 * * *", "collection=x", 'paths=["/srv"]')
    added = run_json("jobs", "schedules", "add", *words, "--time-zone", "Europe/Berlin")
    assert added["arguments"] == {"collection": "x", "paths": ["/srv"]}
    assert added["next_at"]
    assert "nightly" in run("jobs", "schedules", "list").stdout
    run("jobs", "schedules", "pause", "nightly")
    assert run_json("jobs", "schedules", "list")[0]["paused"]
    run("jobs", "schedules", "pause", "nightly", "--resume")
    assert not run_json("jobs", "schedules", "list")[0]["paused"]
    assert "did you mean" in run("jobs", "schedules", "remove", "nightli", code=1).stderr
    run("jobs", "schedules", "remove", "nightly")
    assert "schedules add" in run("jobs", "schedules", "list").stderr
    for wrong in ("61 * * * *", "never"):
        bad = run("jobs", "schedules", "add", "x", "ingest_attached", wrong, "collection=x", code=1)
        assert wrong in bad.stderr


def test_a_worker_killed_in_the_middle_hands_its_job_over(
    parts: Components, start_worker: Any
) -> None:
    Path("notes").mkdir()
    for number in range(200):
        Path(f"notes/{number}.txt").write_text(f"Note {number}: nothing to see.\n" * 20)
    run("ingest", "notes", "--background", "-c", "notes")
    [job] = run_json("jobs", "list")
    first = start_worker()
    collection = parts.collections.get("notes")
    deadline = time.monotonic() + 60
    while not parts.collections.statistics(collection.id).completed:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    first.kill()
    first.wait(10)
    start_worker()
    done = parts.jobs.wait(job["id"], timeout_seconds=60)
    assert (done.state, done.crashes) == ("succeeded", 1)
    page = parts.documents.list(collection, limit=1000)
    assert len(page.items) == 200
    assert {(item.status, item.version) for item in page.items} == {("completed", 1)}

"""Jobs over HTTP: started, listed, followed by events, cancelled, retried."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from starlette.testclient import TestClient

from infra.jobs import attempt
from infra.jobs.attempt import Attempt
from infra.jobs.definitions import Behaviour, Options
from infra.jobs.queue import Jobs
from service import streaming
from service.app import create_app
from service.wiring import Components
from waiting import until

JOBS = "/v1/jobs"
Event = tuple[str, int | None, Any]


def idle(attempt: Attempt) -> None:
    del attempt


class Played:
    """A registered job that the test steps through."""

    def __init__(self) -> None:
        self.go_on = threading.Semaphore(0)
        self.reached = threading.Semaphore(0)

    def __call__(self, attempt: Attempt, number: int = 1, fail: bool = False) -> int:
        for part in range(number):
            attempt.log(f"part {part}")
            attempt.progress((part + 1) / number, f"part {part}")
            self.reached.release()
            while not self.go_on.acquire(timeout=0.02):
                attempt.check()
        if fail:
            raise LookupError("as asked")
        return number


@pytest.fixture
def played(components: Components) -> Played:
    job = Played()
    outside = Behaviour(steps=False, remote=True)
    components.jobs.registry.job("play", behaviour=outside)(
        lambda attempt, number=1, fail=False: job(attempt, number, fail)
    )
    components.jobs.registry.job("inside", behaviour=Behaviour(steps=False))(idle)
    return job


@pytest.fixture
def client(components: Components, played: Played) -> Any:
    """On SQLite and on PostgreSQL, with a job of the test's own."""
    app = create_app(components)
    with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as started:
        yield started


@pytest.fixture
def jobs(components: Components) -> Jobs:
    return components.jobs


def start(client: TestClient, **body: Any) -> dict[str, Any]:
    response = client.post(JOBS, json={"job": "play", **body})
    assert response.status_code == 200, response.text
    started: dict[str, Any] = response.json()
    return started


def events(client: TestClient, job_id: str, **headers: str) -> list[Event]:
    answered = client.get(f"{JOBS}/{job_id}/events", headers=headers)
    assert answered.status_code == 200, answered.text
    assert answered.headers["content-type"].startswith("text/event-stream")
    return [parse(frame) for frame in answered.text.split("\n\n") if frame]


def parse(frame: str) -> Event:
    fields = dict(line.split(": ", 1) for line in frame.splitlines() if not line.startswith(":"))
    number = int(fields["id"]) if "id" in fields else None
    return fields.get("event", "comment"), number, json.loads(fields.get("data", "null"))


def test_a_job_is_started_runs_and_can_be_read(
    client: TestClient, played: Played, jobs: Jobs
) -> None:
    started = start(client, arguments={"number": 2}, key="once", priority=3)
    assert (started["object"], started["job"], started["priority"]) == ("job", "play", 3)
    assert start(client, arguments={"number": 2}, key="once")["id"] == started["id"]
    other = client.post(JOBS, json={"job": "play", "arguments": {"number": 3}, "key": "once"})
    assert other.status_code == 409
    played.go_on.release(2)
    jobs.wait(started["id"])
    done = client.get(f"{JOBS}/{started['id']}").json()
    assert (done["state"], done["result"], done["progress"]) == ("succeeded", 2, 1.0)
    lines = client.get(f"{JOBS}/{started['id']}/logs").json()
    assert [line["message"] for line in lines["data"]] == ["part 0", "part 1"]
    rest = client.get(
        f"{JOBS}/{started['id']}/logs", params={"after": lines["data"][0]["sequence"], "limit": 1}
    ).json()
    assert ([line["message"] for line in rest["data"]], rest["has_more"]) == (["part 1"], False)


def test_what_cannot_be_started_is_refused(client: TestClient, jobs: Jobs) -> None:
    refused: list[tuple[dict[str, Any], int, str]] = [
        ({"job": "plai"}, 404, "'play'"),
        ({"job": "inside"}, 403, "ragstone jobs start inside"),
        ({"job": "play", "arguments": {"nmber": 1}}, 400, "nmber"),
        ({"job": "play", "arguments": []}, 400, ""),
        ({"job": "play", "priority": 10**6}, 400, ""),
        ({"job": "play", "unknown": 1}, 400, "unknown"),
        ({}, 400, "job"),
    ]
    for body, status, word in refused:
        answered = client.post(JOBS, json=body)
        assert answered.status_code == status, body
        assert word in answered.json()["error"]["message"]
    assert jobs.list() == []


def test_jobs_are_listed_page_by_page(client: TestClient, jobs: Jobs) -> None:
    ids = [jobs.start("inside", options=Options(tenant="t")).id for _ in range(5)]
    seen: list[str] = []
    while True:
        query: dict[str, Any] = {"limit": 2, **({"after": seen[-1]} if seen else {})}
        page = client.get(JOBS, params=query).json()
        seen += [item["id"] for item in page["data"]]
        if not page["has_more"]:
            break
    assert seen == ids[::-1]
    for query in ({"tenant": "other"}, {"job": "play"}, {"state": "failed"}):
        assert client.get(JOBS, params=query).json()["data"] == []
    assert client.get(JOBS, params={"state": "asleep"}).status_code == 400
    assert client.get(JOBS, params={"after": "job_x"}).status_code == 404


def test_events_tell_progress_and_log_until_the_end(
    client: TestClient, played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[str] = []
    logs = Jobs.logs

    def counted(jobs: Jobs, job_id: str, **range: int) -> Any:
        looks.append(job_id)
        return logs(jobs, job_id, **range)

    monkeypatch.setattr(Jobs, "logs", counted)
    monkeypatch.setattr(streaming, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(attempt, "PROGRESS_SECONDS", 0.0)
    job = start(client, arguments={"number": 3})
    told: list[Event] = []
    thread = threading.Thread(target=lambda: told.extend(events(client, job["id"])))
    thread.start()
    for _ in range(3):
        assert played.reached.acquire(timeout=20)
        before = len(looks)
        until(lambda: len(looks) > before + 1)  # noqa: B023  one look began after the report
        played.go_on.release()
    thread.join(20)
    assert told[-1][0] == "done"
    assert told[-1][2]["result"] == 3
    logged = [event for event in told if event[0] == "log"]
    assert [event[2]["message"] for event in logged] == ["part 0", "part 1", "part 2"]
    assert all(event[1] == event[2]["sequence"] for event in logged)
    fractions = [event[2]["progress"] for event in told if event[0] == "progress"]
    assert [each for each in fractions if each] == pytest.approx([1 / 3, 2 / 3, 1], abs=1e-6)
    resumed = events(client, job["id"], **{"Last-Event-ID": str(logged[1][1])})
    assert [event[0] for event in resumed] == ["log", "done"]
    assert resumed[0][2]["message"] == "part 2"
    assert events(client, job["id"], **{"Last-Event-ID": str(told[-1][1])}) == [told[-1]]


def test_events_of_what_is_not_there_or_makes_no_sense(client: TestClient, played: Played) -> None:
    assert client.get(f"{JOBS}/job_x/events").status_code == 404
    job = start(client)
    for wrong in ("-1", "x", str(2**63)):
        answered = client.get(f"{JOBS}/{job['id']}/events", headers={"Last-Event-ID": wrong})
        assert answered.status_code == 400
    played.go_on.release()


def test_events_end_when_the_server_is_about_to_stop(client: TestClient, played: Played) -> None:
    job = start(client)
    assert played.reached.acquire(timeout=20)
    client.app.state.stopping.set()  # type: ignore[attr-defined]
    assert [event[0] for event in events(client, job["id"])] == ["log", "progress"]
    played.go_on.release()


def test_a_running_job_is_cancelled_and_given_another_chance(
    client: TestClient, played: Played, jobs: Jobs
) -> None:
    job = start(client)
    assert played.reached.acquire(timeout=20)
    asked = client.post(f"{JOBS}/{job['id']}/cancel").json()
    assert asked["cancel_requested"] or asked["state"] == "cancelled"
    assert jobs.wait(job["id"]).state == "cancelled"
    again = client.post(f"{JOBS}/{job['id']}/retry", json={"from_scratch": True})
    assert again.json()["state"] in {"queued", "running"}
    played.go_on.release()
    assert jobs.wait(job["id"]).result == 1
    assert client.post(f"{JOBS}/{job['id']}/retry").status_code == 409
    assert client.post(f"{JOBS}/{job['id']}/cancel").json()["state"] == "succeeded"
    for verb in ("cancel", "retry"):
        assert client.post(f"{JOBS}/job_x/{verb}").status_code == 404


def test_cancelling_an_ingest_leaves_its_files_unread(client: TestClient) -> None:
    components = client.app.state.components  # type: ignore[attr-defined]
    components.worker.stop()
    client.post("/v1/vector_stores", json={"name": "x"})
    files, data = {"file": ("a.txt", b"A rule.")}, {"purpose": "assistants"}
    file_id = client.post("/v1/files", files=files, data=data).json()["id"]
    client.post("/v1/vector_stores/x/files", json={"file_id": file_id})
    [job] = client.get(JOBS, params={"job": "ingest_attached"}).json()["data"]
    assert job["state"] == "queued"
    assert client.post(f"{JOBS}/{job['id']}/cancel").json()["state"] == "cancelled"
    assert client.get(f"/v1/vector_stores/x/files/{file_id}").json()["status"] == "cancelled"


def test_metrics_tell_how_much_there_is_to_do(client: TestClient, jobs: Jobs) -> None:
    client.app.state.components.worker.stop()  # type: ignore[attr-defined]
    jobs.start("inside")
    text = client.get("/metrics").text
    assert "ragstone_jobs_queued 1.0" in text
    assert "ragstone_jobs_running 0.0" in text
    assert "ragstone_jobs_oldest_seconds" in text

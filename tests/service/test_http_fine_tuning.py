"""Fine-tuning jobs over HTTP before anything is trained: asked for, refused, listed, kept apart."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, update
from starlette.testclient import TestClient

from infra.errors import StorageFailed
from infra.jobs.queue import Jobs
from infra.jobs.records import Job
from infra.jobs.tables import job as queue_job
from service.app import create_app
from service.callers import Caller
from service.fine_tuning.ordering import Orders
from service.fine_tuning.records import FineTuningJobs
from service.keys import Opens
from service.wiring import Components

only_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""For what no database decides."""
JOBS = "/v1/fine_tuning/jobs"
ROW = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}
TUNABLE = {
    "tiny": {"model": "somewhere", "device": "cpu"},
    "stepped": {
        "model": "somewhere",
        "options": {"schedule": {"steps": 7, "tokens_per_step": 512, "learning_rate": 0.01}},
    },
}
ROUTED = {"model": "somewhere", "route": "bolts-own"}
GATEWAY = {
    "upstreams": {"one": {"urls": ["http://127.0.0.1:1"]}},
    "routes": {"bolts-own": {"targets": [{"upstream": "one"}], "tenant": "bolt"}},
}
CALLERS = {
    "operator": Opens(),
    "ada": Opens(tenant="acme"),
    "cyd": Opens(tenant="bolt"),
    "reader": Opens(scopes=frozenset({"read", "write", "ask", "models"})),
    "limited": Opens(models=("other-*",)),
}


class Service:
    """The application with models that may be tuned and no worker, and keys' headers."""

    def __init__(self, client: TestClient, keys: dict[str, str]) -> None:
        self.client = client
        self._keys = keys

    @property
    def components(self) -> Components:
        found: Components = self.client.app.state.components  # type: ignore[attr-defined]
        return found

    @property
    def queue(self) -> Jobs:
        return self.components.jobs

    def call(self, method: str, path: str, *, who: str = "operator", **more: Any) -> Any:
        headers = {"Authorization": f"Bearer {self._keys[who]}"}
        return self.client.request(method, path, headers=headers, **more)

    def upload(self, *, who: str = "operator", purpose: str = "fine-tune") -> str:
        stored = self.call(
            "POST",
            "/v1/files",
            who=who,
            files={"file": ("rows.jsonl", json.dumps(ROW).encode())},
            data={"purpose": purpose},
        )
        assert stored.status_code == 200, stored.text
        return str(stored.json()["id"])

    def create(self, *, who: str = "operator", **body: Any) -> dict[str, Any]:
        file_id = body.pop("training_file", None) or self.upload(who=who)
        answered = self.call(
            "POST", JOBS, who=who, json={"model": "tiny", "training_file": file_id, **body}
        )
        assert answered.status_code == 200, answered.text
        made: dict[str, Any] = answered.json()
        return made

    def refused(self, *, who: str = "operator", **body: Any) -> tuple[int, dict[str, Any]]:
        answered = self.call("POST", JOBS, who=who, json=body)
        return answered.status_code, answered.json()["error"]


@pytest.fixture
def service(settings: Any, tmp_path: Path) -> Iterator[Service]:
    """On SQLite and on PostgreSQL."""
    changed = settings.model_copy(
        update={
            "server": settings.server.model_copy(update={"authentication": "on"}),
            "jobs": settings.jobs.model_copy(update={"in_process": False}),
            "fine_tuning": type(settings.fine_tuning)(
                models={**TUNABLE, "routed": ROUTED}, max_waiting=4
            ),
            "gateway": type(settings.gateway).model_validate(GATEWAY),
        }
    )
    parts = Components(changed, reread=lambda: changed)
    keys = {name: parts.keys.create(name, opens=opens)[1] for name, opens in CALLERS.items()}
    app = create_app(parts)
    with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        yield Service(client, keys)


def test_nothing_is_tuned_unless_the_settings_name_it(client: TestClient) -> None:
    answered = client.post(JOBS, json={"model": "tiny", "training_file": "file-1"})
    assert answered.status_code == 404
    assert answered.json()["error"]["code"] == "model_not_found"
    assert client.get(JOBS).json() == {"object": "list", "data": [], "has_more": False}


@only_sqlite
def test_a_job_that_was_made_is_told_as_openai_tells_it(service: Service) -> None:
    file_id = service.upload()
    made = service.create(training_file=file_id, suffix="zeds", seed=5, metadata={"team": "a"})
    assert service.call("GET", f"{JOBS}/{made['id']}").json() == made
    hyperparameters = {"n_epochs": 3, "batch_size": 8, "learning_rate_multiplier": 1.0}
    assert made.pop("id").startswith("ftjob-")
    assert made.pop("created_at") > 1_700_000_000
    assert made == {
        "object": "fine_tuning.job", "model": "tiny", "status": "queued", "error": None,
        "training_file": file_id, "validation_file": None, "fine_tuned_model": None,
        "finished_at": None, "estimated_finish": None, "trained_tokens": None,
        "result_files": [], "seed": 5, "organization_id": "ragstone", "integrations": [],
        "metadata": {"team": "a"}, "user_provided_suffix": "zeds",
        "hyperparameters": hyperparameters,
        "method": {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},
    }  # fmt: skip


@only_sqlite
def test_what_is_asked_for_decides_what_is_trained(service: Service) -> None:
    chosen = {"n_epochs": 2, "batch_size": 4, "learning_rate_multiplier": 3.0, "beta": 0.2}
    method = {"type": "dpo", "dpo": {"hyperparameters": chosen}}
    made = service.create(method=method, seed=9, validation_file=service.upload())
    assert made["hyperparameters"] == chosen
    stored = _specification(service, made["id"])
    assert stored["method"] | {"adapter": None} == {"type": "dpo", "adapter": None, "beta": 0.2}
    schedule = stored["schedule"]
    assert (schedule["epochs"], schedule["rows_per_step"]) == (2, 4)
    assert schedule["learning_rate"] == pytest.approx(6e-5)
    assert stored["seed"] == 9
    assert stored["data"]["train"]["rows"] == "rows/training.jsonl"
    assert stored["data"]["eval"]["rows"] == "rows/validation.jsonl"
    assert stored["register"] == {"name": f"ft-{made['id'][-12:]}", "alias": None}
    assert stored["runtime"]["device"] == "cpu"


@only_sqlite
def test_the_settings_of_a_model_hold_where_a_client_leaves_it_to_them(service: Service) -> None:
    auto = service.create(model="stepped", hyperparameters={"n_epochs": "auto"})
    assert auto["hyperparameters"] == {
        "n_epochs": "auto", "batch_size": "auto", "learning_rate_multiplier": 1.0,
    }  # fmt: skip
    schedule = _specification(service, auto["id"])["schedule"]
    assert (schedule["steps"], schedule["tokens_per_step"]) == (7, 512)
    asked = {"n_epochs": 2, "batch_size": 3, "learning_rate_multiplier": 2}
    own = service.create(model="stepped", hyperparameters=asked)
    schedule = _specification(service, own["id"])["schedule"]
    assert (schedule["steps"], schedule["epochs"]) == (None, 2)
    assert (schedule["tokens_per_step"], schedule["rows_per_step"]) == (None, 3)
    assert schedule["learning_rate"] == pytest.approx(0.02)


def _specification(service: Service, job_id: str) -> dict[str, Any]:
    return FineTuningJobs(service.components.database).get(job_id).specification


@only_sqlite
def test_what_cannot_be_done_is_refused_with_its_parameter(service: Service) -> None:
    good, other = service.upload(), service.upload(purpose="assistants")
    beside = {"hyperparameters": {}, "method": {"type": "supervised"}}
    wandb = {"integrations": [{"type": "wandb", "wandb": {"project": "p"}}]}
    mixed = {"method": {"type": "supervised", "dpo": {}}}
    fast = {"hyperparameters": {"learning_rate_multiplier": 1e5}}
    refused: list[tuple[dict[str, Any], int, str | None, str]] = [
        ({"model": "tini"}, 404, None, "tiny"),
        ({"training_file": "file-none"}, 404, None, "file-none"),
        ({"training_file": other}, 400, "training_file", "'fine-tune'"),
        ({"validation_file": other}, 400, "validation_file", "'fine-tune'"),
        ({"training_file": "dataset/none@v1"}, 404, None, "none"),
        (wandb, 400, "integrations", "tracking.mirrors"),
        ({"method": {"type": "reinforcement"}}, 400, "method.type", "'dpo'"),
        (beside, 400, "hyperparameters", "method"),
        (mixed, 400, "method", "'dpo' is given"),
        (fast, 400, "hyperparameters.learning_rate_multiplier", "above 1"),
        ({"hyperparameters": {"n_epochs": 0}}, 400, None, "n_epochs"),
        ({"suffix": "a b"}, 400, "suffix", ""),
        ({"seed": -1}, 400, "seed", ""),
        ({"metadata": {"k": "v" * 513}}, 400, "metadata.k", ""),
        ({"epochs": 3}, 400, "epochs", ""),
        ({"model": 3}, 400, "model", ""),
    ]
    for body, status, parameter, word in refused:
        found, error = service.refused(**{"model": "tiny", "training_file": good, **body})
        assert (found, word in error["message"]) == (status, True), (body, error)
        if parameter is not None:
            assert error["param"] == parameter, body
    assert service.refused(model="tiny")[1]["param"] == "training_file"
    assert service.call("GET", JOBS).json()["data"] == []
    assert service.queue.list(name="fine_tuning") == []


@only_sqlite
def test_empty_integrations_and_nulls_are_taken(service: Service) -> None:
    nulls = dict.fromkeys(("validation_file", "suffix", "seed", "metadata", "method"))
    made = service.create(integrations=[], **nulls)
    assert made["seed"] >= 0
    assert made["metadata"] is None


def test_jobs_are_listed_in_pages_and_by_metadata(service: Service) -> None:
    ids = [service.create(metadata={"n": str(n)} if n else None)["id"] for n in range(3)]
    first = service.call("GET", JOBS, params={"limit": 2}).json()
    assert ([each["id"] for each in first["data"]], first["has_more"]) == (ids[:0:-1], True)
    rest = service.call("GET", JOBS, params={"limit": 2, "after": ids[1]}).json()
    assert ([each["id"] for each in rest["data"]], rest["has_more"]) == ([ids[0]], False)
    for query, wanted in (("metadata[n]=2", [ids[2]]), ("metadata=null", [ids[0]])):
        found = service.call("GET", f"{JOBS}?{query}").json()["data"]
        assert [each["id"] for each in found] == wanted
    assert service.call("GET", f"{JOBS}?metadata[n]=2&metadata[m]=1").json()["data"] == []
    odd = {'a"b': "quote", "c\\d": "\\", "é": "ö", "$.n": "path", "e.f": "", "[0]": "'"}
    named = service.create(metadata=odd)["id"]
    for key, value in odd.items():
        found = service.call("GET", JOBS, params={f"metadata[{key}]": value}).json()
        assert [each["id"] for each in found["data"]] == [named], key
        assert service.call("GET", JOBS, params={f"metadata[{key}]": "x"}).json()["data"] == []
    quoted = {'metadata["]': '"'}
    assert service.call("GET", JOBS, params=quoted).json()["data"] == []
    assert service.call("GET", JOBS, params={"metadata[\0]": "a"}).status_code == 400
    assert service.call("GET", f"{JOBS}?metadata.n=2").status_code == 400
    assert service.call("GET", f"{JOBS}?after=ftjob-none").status_code == 404
    assert service.call("GET", f"{JOBS}?limit=0").status_code == 400


def test_a_job_that_waits_is_cancelled_at_once_and_stays_so(service: Service) -> None:
    job_id = service.create()["id"]
    cancelled = service.call("POST", f"{JOBS}/{job_id}/cancel").json()
    assert cancelled["status"] == "cancelled"
    assert cancelled["finished_at"] >= cancelled["created_at"]
    assert [each.state for each in service.queue.list(name="fine_tuning")] == ["cancelled"]
    for verb in ("cancel", "pause", "resume"):
        again = service.call("POST", f"{JOBS}/{job_id}/{verb}")
        assert again.status_code == 409
        assert "been cancelled" in again.json()["error"]["message"]


def test_a_job_that_waits_is_paused_and_resumed(service: Service) -> None:
    job_id = service.create()["id"]
    assert service.call("POST", f"{JOBS}/{job_id}/resume").status_code == 409
    for _ in range(2):
        assert service.call("POST", f"{JOBS}/{job_id}/pause").json()["status"] == "paused"
    assert service.call("GET", f"{JOBS}/{job_id}").json()["status"] == "paused"
    [queued] = service.queue.list(name="fine_tuning")
    retried = service.call("POST", f"/v1/jobs/{queued.id}/retry")
    assert retried.status_code == 409
    assert f"{JOBS}/{job_id}/resume" in retried.json()["error"]["message"]
    assert service.queue.get(queued.id).state == "cancelled"
    assert service.call("POST", f"{JOBS}/{job_id}/resume").json()["status"] == "queued"
    assert [each.state for each in service.queue.list(name="fine_tuning")] == ["queued"]
    said = service.call("GET", f"{JOBS}/{job_id}/events").json()["data"]
    assert [each["message"] for each in said] == [
        "The job was resumed", "The job was paused", f"Created fine-tuning job: {job_id}",
    ]  # fmt: skip


def test_events_come_newest_first_in_pages_or_as_a_stream_to_the_end(service: Service) -> None:
    job_id = service.create()["id"]
    path = f"{JOBS}/{job_id}/events"
    service.call("POST", f"{JOBS}/{job_id}/cancel")
    newest = service.call("GET", path, params={"limit": 1}).json()
    [event] = newest["data"]
    assert newest["has_more"]
    assert (event["object"], event["level"], event["type"]) == (
        "fine_tuning.job.event", "info", "message",
    )  # fmt: skip
    assert event["message"] == "The job was cancelled"
    older = service.call("GET", path, params={"after": event["id"]}).json()["data"]
    assert [each["message"] for each in older] == [f"Created fine-tuning job: {job_id}"]
    streamed = service.call("GET", path, params={"stream": True})
    assert streamed.headers["content-type"].startswith("text/event-stream")
    *told, end = [frame.removeprefix("data: ") for frame in streamed.text.split("\n\n") if frame]
    assert end == "[DONE]"
    assert [json.loads(each) for each in told] == [*older, event]
    assert service.call("GET", f"{JOBS}/{job_id}/checkpoints").json()["data"] == []


def test_what_the_queue_gave_up_or_forgot_has_failed(service: Service) -> None:
    first, second = (service.create()["id"] for _ in range(2))
    with service.components.database.write() as connection:
        given_up = queue_job.c.arguments["job"].as_string() == first
        connection.execute(
            update(queue_job).where(given_up).values(state="failed", error="it died")
        )
        connection.execute(delete(queue_job).where(~given_up))
    for job_id, word in ((first, "it died"), (second, "not in the queue")):
        found = service.call("GET", f"{JOBS}/{job_id}").json()
        assert (found["status"], found["error"]["code"]) == ("failed", "server_error")
        assert word in found["error"]["message"]


@pytest.mark.parametrize("verb", ["cancel", "pause"])
def test_a_look_that_is_out_of_date_writes_no_end_over_what_was_decided_since(
    service: Service, verb: str
) -> None:
    job_id = service.create()["id"]
    orders = Orders(service.components, Caller())
    seen = orders.jobs.get(job_id)
    decided = service.call("POST", f"{JOBS}/{job_id}/{verb}").json()
    assert service.queue.list(name="fine_tuning")[0].state == "cancelled"
    assert orders._settled(seen).status != "failed"
    assert service.call("GET", f"{JOBS}/{job_id}").json() == decided
    if verb == "pause":
        assert service.call("POST", f"{JOBS}/{job_id}/resume").json()["status"] == "queued"


@only_sqlite
def test_a_look_at_a_job_that_is_resumed_meanwhile_tells_how_it_stands_now(
    service: Service,
) -> None:
    job_id = service.create()["id"]
    orders = Orders(service.components, Caller())
    seen = orders.jobs.get(job_id)
    service.call("POST", f"{JOBS}/{job_id}/pause")
    with service.components.database.write() as connection:
        connection.execute(delete(queue_job))
    resumed = service.call("POST", f"{JOBS}/{job_id}/resume").json()
    assert orders._standing(seen)[0].status == resumed["status"] == "queued"


def test_what_cannot_be_done_in_the_queue_is_not_written_down_nor_the_other_way_round(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise StorageFailed("the disk is full")

    job_id = service.create()["id"]
    for verb, call in (("cancel", "cancel"), ("pause", "cancel"), ("resume", "requeue")):
        if verb == "resume":
            service.call("POST", f"{JOBS}/{job_id}/pause")
        before = service.call("GET", f"{JOBS}/{job_id}").json()
        queued = service.queue.list(name="fine_tuning")
        for where, name in ((Jobs, call), (FineTuningJobs, "say")):
            with monkeypatch.context() as patch:
                patch.setattr(where, name, full)
                assert service.call("POST", f"{JOBS}/{job_id}/{verb}").status_code == 503
            assert service.call("GET", f"{JOBS}/{job_id}").json() == before
            assert service.queue.list(name="fine_tuning") == queued


def test_a_paused_job_that_the_queue_forgot_is_resumed_or_cancelled(service: Service) -> None:
    first, second = (service.create(who="ada")["id"] for _ in range(2))
    for job_id in (first, second):
        service.call("POST", f"{JOBS}/{job_id}/pause")
    with service.components.database.write() as connection:
        connection.execute(delete(queue_job))
    resumed = service.call("POST", f"{JOBS}/{first}/resume").json()
    assert resumed["status"] == "queued"
    [queued] = service.queue.list(name="fine_tuning")
    assert (queued.arguments, queued.tenant) == ({"job": first}, "acme")
    assert service.call("POST", f"{JOBS}/{second}/cancel").json()["status"] == "cancelled"


@only_sqlite
def test_a_list_asks_the_queue_once(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        service.create()
    asked: list[int] = []
    find = Jobs.find

    def counting(jobs: Jobs, ids: Iterable[str]) -> dict[str, Job]:
        asked.append(len(wanted := list(ids)))
        return find(jobs, wanted)

    monkeypatch.setattr(Jobs, "find", counting)
    monkeypatch.setattr(Jobs, "get", None)
    assert len(service.call("GET", JOBS).json()["data"]) == 3
    assert asked == [3]


def test_a_tenant_sees_its_own_jobs_and_files_only(service: Service) -> None:
    own = service.create(who="ada")["id"]
    theirs = service.upload(who="cyd")
    assert service.refused(who="ada", model="tiny", training_file=theirs)[0] == 404
    assert service.refused(who="ada", model="tiny", training_file="dataset/a@v1")[0] == 403
    for who, seen in (("ada", [own]), ("cyd", []), ("operator", [own])):
        listed = service.call("GET", JOBS, who=who).json()["data"]
        assert [each["id"] for each in listed] == seen
    calls = [("GET", ""), ("GET", "/events"), ("GET", "/checkpoints"), ("GET", "/events?stream=1")]
    calls += [("POST", f"/{verb}") for verb in ("cancel", "pause", "resume")]
    for method, rest in calls:
        assert service.call(method, f"{JOBS}/{own}{rest}", who="cyd").status_code == 404
    assert service.call("GET", f"{JOBS}/{own}", who="ada").json()["organization_id"] == "acme"
    assert service.queue.list(name="fine_tuning")[0].tenant == "acme"


@only_sqlite
def test_keys_need_the_scope_and_the_model(service: Service) -> None:
    assert service.call("GET", JOBS, who="reader").status_code == 403
    assert service.call("DELETE", "/v1/models/ft:tiny::1", who="reader").status_code == 403
    status, error = service.refused(who="limited", model="tiny", training_file="file-1")
    assert (status, error["code"]) == (404, "model_not_found")


@only_sqlite
def test_a_model_whose_route_is_a_tenants_is_tuned_by_that_tenant_alone(service: Service) -> None:
    for who in ("cyd", "operator"):
        service.create(who=who, model="routed")
    for name in ("routed", "routes"):
        file_id = service.upload(who="ada")
        status, error = service.refused(who="ada", model=name, training_file=file_id)
        assert (status, error["code"]) == (404, "model_not_found")
        assert "'routed'" not in error["message"].replace(f"No model {name!r}", "")


def test_a_tenant_cannot_queue_jobs_without_end(service: Service) -> None:
    made = [service.create(who="ada")["id"] for _ in range(4)]
    file_id = service.upload(who="ada")
    status, error = service.refused(who="ada", model="tiny", training_file=file_id)
    assert (status, error["type"]) == (429, "rate_limit_error")
    service.create(who="cyd")
    service.call("POST", f"{JOBS}/{made[0]}/cancel", who="ada")
    service.create(who="ada")


def test_a_wrong_setting_of_a_model_is_told_as_one(
    fast_settings: Callable[..., Any], open_client: Callable[..., TestClient]
) -> None:
    wrong = {"tiny": {"model": "m", "options": {"schedule": {"warmup": 3}}}}
    client = open_client(fast_settings(fine_tuning={"models": wrong}, jobs={"in_process": False}))
    upload = client.post(
        "/v1/files", files={"file": ("r.jsonl", b"{}")}, data={"purpose": "fine-tune"}
    )
    answered = client.post(JOBS, json={"model": "tiny", "training_file": upload.json()["id"]})
    assert answered.status_code == 500
    assert "fine_tuning.models.tiny: schedule.warmup" in answered.json()["error"]["message"]

"""Tuned models are asked by name where their base is served, by their tenant, at its price."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlalchemy import delete, insert
from starlette.testclient import TestClient

from infra.database.engine import Database
from infra.database.fine_tuning_tables import tuned_model
from infra.errors import InvalidConfiguration
from infra.fine_tuning_settings import FineTuning
from infra.gateway_settings import Gateway
from service.app import create_app
from service.fine_tuning import tuned_models
from service.fine_tuning.records import Asked, FineTuningJob, FineTuningJobs
from service.fine_tuning.tuned_models import Tuned, TunedModels, extended
from service.gateway.reloading import Tables
from service.gateway.routing import Served, Table
from service.keys import Opens
from service.routes.fine_tuning import _serve
from service.wiring import Components
from tiny_llm import write_adapter, write_llm

SECONDS = 60.0
GATEWAY = Gateway.model_validate(
    {
        "upstreams": {"one": {"urls": ["http://127.0.0.1:1"]}},
        "routes": {
            "base": {
                "targets": [
                    {"upstream": "one", "model": "m", "weight": 3},
                    {"upstream": "one", "adapter": "adapter/x@live"},
                ],
                "shadow": [{"upstream": "one"}],
                "fallback": ["other"],
                "context_tokens": 99,
            },
            "other": {"targets": [{"upstream": "one"}]},
            "vectors": {"targets": [{"upstream": "one"}], "kind": "embeddings"},
        },
        "prices": {"base": {"input_per_million": 2.0}},
        "model_limits": {"base": {"requests_per_minute": 5}},
    }
)
SETTINGS = FineTuning.model_validate(
    {
        "models": {
            "base": {"model": "m"},
            "small": {"model": "m", "route": "base"},
            "lost": {"model": "m"},
            "vectors": {"model": "m"},
        }
    }
)


def test_a_tuned_model_goes_where_its_base_goes_and_costs_the_same() -> None:
    tuned = Tuned("ft:base::1", "base", "acme", "adapter/ft-1@v1")
    made = extended(GATEWAY, (tuned,), SETTINGS)
    route = made.routes["ft:base::1"]
    [target] = route.targets
    assert (target.upstream, target.model, target.adapter, target.weight) == (
        "one", None, "adapter/ft-1@v1", 3,
    )  # fmt: skip
    assert (route.shadow, route.fallback, route.tenant) == ((), (), "acme")
    assert route.context_tokens == 99
    assert made.prices["ft:base::1"] == GATEWAY.prices["base"]
    assert made.model_limits["ft:base::1"] == GATEWAY.model_limits["base"]
    assert {name: made.routes[name] for name in GATEWAY.routes} == GATEWAY.routes


def test_what_has_no_route_is_not_served_and_names_of_the_settings_stay_theirs() -> None:
    models = tuple(
        Tuned(name, base, None, "adapter/ft-1@v1")
        for name, base in (("ft:lost::1", "lost"), ("ft:vectors::1", "vectors"), ("other", "base"))
    )
    assert extended(GATEWAY, models, SETTINGS).routes == GATEWAY.routes
    for base_of, own, served in (
        ("acme", "acme", True),
        ("acme", None, True),
        ("acme", "b", False),
    ):
        route = GATEWAY.routes["base"].model_copy(update={"tenant": base_of})
        gateway = GATEWAY.model_copy(update={"routes": {"base": route}})
        made = extended(gateway, (Tuned("ft:base::1", "base", own, "adapter/ft-1@v1"),), SETTINGS)
        assert ("ft:base::1" in made.routes) is served
        assert not served or made.routes["ft:base::1"].tenant == "acme"
    by_another = Tuned("ft:small::1", "small", None, "adapter/ft-1@v1")
    assert "ft:small::1" in extended(GATEWAY, (by_another,), SETTINGS).routes


def write_down(database: Database, name: str, tenant: str | None, number: int) -> None:
    """Write a tuned model down as if it came of a job."""
    asked = Asked("base", "file-1", None, {"type": "supervised"}, None, 1, None)
    now = datetime.now(UTC)
    job = FineTuningJob(f"ftjob-{number}", tenant, f"job_{number}", asked, {}, "succeeded", now)
    row = {"name": name, "base": "base", "tenant": tenant, "adapter": f"adapter/ft-{number}@v1"}
    row |= {"fine_tuning_job_id": job.id, "created_at": now}
    with database.write() as connection:
        FineTuningJobs(database).add(connection, job)
        connection.execute(insert(tuned_model).values(row))


def test_of_each_tenant_the_newest_are_served_and_models_before_checkpoints(
    database: Database,
) -> None:
    models = TunedModels(lambda: database, SETTINGS.model_copy(update={"max_served": 2}))
    written = [("a1", "acme"), ("o1", None), ("a2", "acme"), ("a2:ckpt-step-1", "acme")]
    written += [("b1", "bolt"), ("b1:ckpt-step-1", "bolt"), ("b1:ckpt-step-2", "bolt")]
    for number, (name, tenant) in enumerate(written):
        write_down(database, name, tenant, number)
    served = list(models.extended(GATEWAY).routes)[len(GATEWAY.routes) :]
    assert served == ["a1", "o1", "a2", "b1", "b1:ckpt-step-2"]
    with database.write() as connection:
        connection.execute(delete(tuned_model).where(tuned_model.c.name == "a2"))
    assert "a2:ckpt-step-1" in models.extended(GATEWAY).routes


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_routes_that_could_not_be_put_in_force_are_not_taken_for_those_that_are(
    database: Database,
) -> None:
    models = TunedModels(lambda: database, SETTINGS)
    route = GATEWAY.routes["base"].model_copy(update={"fallback": ("nowhere",)})
    wrong = GATEWAY.model_copy(update={"routes": {"base": route}})

    async def reload_and_tune() -> None:
        tables = Tables(models.extended(GATEWAY), adapters=lambda: cast(Served, None))
        for name in ("first", "second"):
            write_down(database, name, None, len(name))
            with pytest.raises(InvalidConfiguration):
                tables.replace(models.extended(wrong))
            await models.refresh(tables)
            assert {name, *GATEWAY.routes} <= set(tables.current.routes)
        before = tables.current
        await models.refresh(tables)
        assert tables.current is before
        await tables.close()

    asyncio.run(reload_and_tune())


def test_models_are_looked_for_when_a_job_has_just_succeeded_and_not_for_ever() -> None:
    looks: list[object] = []

    async def refresh(tables: object) -> None:
        looks.append(tables)

    tables = SimpleNamespace(current=SimpleNamespace(routes={"ft:base::served": None}))
    parts = SimpleNamespace(routes=tables, tuned_models=SimpleNamespace(refresh=refresh))
    asked = Asked("base", "file-1", None, {"type": "supervised"}, None, 1, None)
    now = datetime.now(UTC)
    new = FineTuningJob("new", None, "job_1", asked, {}, "succeeded", now, finished_at=now)
    old = replace(new, id="old", finished_at=now - timedelta(minutes=2))
    others = (replace(new, id="served"), replace(new, status="failed"))
    asyncio.run(_serve(cast(Components, parts), old, *others))
    assert looks == []
    asyncio.run(_serve(cast(Components, parts), old, new))
    assert looks == [tables]


@pytest.fixture
def tuned(
    fast_settings: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Tuning]:
    monkeypatch.setattr(tuned_models, "WATCH_SECONDS", 0.05)
    pytest.importorskip("transformers", reason="the extra 'transformers' is not installed")
    model = write_llm(tmp_path / "model")
    upstream = {"plugin": "transformers_local", "options": {"model": str(model)}}
    route = {"targets": [{"upstream": "local", "model": str(model)}], "retries": 0}
    settings = fast_settings(
        server={"authentication": "on"},
        gateway={"upstreams": {"local": upstream}, "routes": {"tiny": route}},
        fine_tuning={"models": {"tiny": {"model": str(model)}}},
    )
    parts = Components(settings, reread=lambda: settings)
    with TestClient(create_app(parts), base_url="http://127.0.0.1") as client:
        yield Tuning(client, parts, tmp_path)


class Tuning:
    """A server with a tiny model in its process, and adapters as if they came of fine-tunings."""

    def __init__(
        self,
        client: TestClient,
        parts: Components,
        folder: Path,
    ) -> None:
        self._folder = folder
        self.client, self.parts = client, parts
        callers = {"operator": None, "ada": "acme", "cyd": "bolt"}
        self._keys = {
            name: self.parts.keys.create(name, opens=Opens(tenant=tenant))[1]
            for name, tenant in callers.items()
        }
        self.parts.keyring.refresh()

    def publish(self, number: int, sign: str, tenant: str | None = None) -> str:
        """Store an adapter that says a sign, and write it down as a tuned model."""
        base = self._folder / "model"
        folder = write_adapter(self._folder / f"says-{sign}", base, sign)
        adapter = str(self.parts.artifacts.put(folder, f"adapter/ft-{number}"))
        asked = Asked("tiny", "file-1", None, {"type": "supervised"}, None, 1, None)
        now = datetime.now(UTC)
        job = FineTuningJob(
            f"ftjob-{number:012}", tenant, f"job_{number}", asked, {}, "succeeded", now
        )
        row = {"name": job.model_name, "base": "tiny", "tenant": tenant, "adapter": adapter}
        with self.parts.database.write() as connection:
            FineTuningJobs(self.parts.database).add(connection, job)
            row |= {"fine_tuning_job_id": job.id, "created_at": now}
            connection.execute(insert(tuned_model).values(row))
        return job.model_name

    def call(self, method: str, path: str, *, who: str, **more: Any) -> Any:
        headers = {"Authorization": f"Bearer {self._keys[who]}"}
        return self.client.request(method, path, headers=headers, **more)

    def ask(self, model: str, *, who: str) -> Any:
        body = {"model": model, "messages": [{"role": "user", "content": "?"}]}
        body |= {"max_tokens": 3, "temperature": 0}
        return self.call("POST", "/v1/chat/completions", who=who, json=body)

    def ask_until_served(self, model: str, *, who: str) -> str:
        """Ask as a client does that tries again after 503."""
        deadline = time.monotonic() + SECONDS
        while (answered := self.ask(model, who=who)).status_code != 200:
            assert answered.status_code in {404, 503}, answered.text
            assert time.monotonic() < deadline, answered.text
            time.sleep(0.05)
        return str(answered.json()["choices"][0]["message"]["content"])

    def models(self, who: str) -> set[str]:
        listed = self.call("GET", "/v1/models", who=who).json()["data"]
        return {each["id"] for each in listed}


def test_models_are_served_to_their_tenant_until_deleted(tuned: Tuning) -> None:
    own, ours = tuned.publish(1, "A", "acme"), tuned.publish(2, "B")
    assert tuned.ask_until_served(own, who="ada") == "AAA"
    assert tuned.ask_until_served(ours, who="operator") == "BBB"
    assert tuned.ask_until_served(own, who="operator") == "AAA"
    assert tuned.ask_until_served("tiny", who="ada") not in {"AAA", "BBB"}

    assert tuned.models("ada") == {"tiny", own, ours}
    assert tuned.models("cyd") == {"tiny", ours}
    assert tuned.call("GET", f"/v1/models/{own}", who="ada").json()["id"] == own
    assert tuned.call("GET", f"/v1/models/{own}", who="cyd").status_code == 404
    refused = tuned.ask(own, who="cyd")
    assert refused.status_code == 404
    near = f"{own[:-1]}x"
    assert own not in tuned.ask(near, who="cyd").text, "nor is it suggested"
    embedded = tuned.call("POST", "/v1/embeddings", who="cyd", json={"model": near, "input": "a"})
    assert (embedded.status_code, own in embedded.text) == (404, False)

    for who, name, status in (("cyd", own, 404), ("ada", ours, 404), ("ada", own, 200)):
        assert tuned.call("DELETE", f"/v1/models/{name}", who=who).status_code == status
    assert tuned.models("ada") == {"tiny", ours}
    assert tuned.ask(own, who="ada").status_code == 404
    assert tuned.call("DELETE", "/v1/models/tiny", who="operator").status_code == 404


def test_a_reload_of_the_routes_keeps_tuned_models(tuned: Tuning) -> None:
    name = tuned.publish(1, "A")
    tuned.ask_until_served(name, who="operator")
    assert tuned.call("POST", "/v1/gateway/reload", who="operator").status_code == 200
    table: Table = tuned.parts.routes.current
    assert name in table.routes

"""Requests generated from OpenAPI, right ones and wrong ones, against a server of their own."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.specs.openapi import checks

import classical_models
import model_server
from infra.artifacts.store import open_store
from migrated import open_migrated
from model_server import Misbehaving
from running_server import start

HELD = [
    schemathesis.checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
]

SERVER = """
[gateway.upstreams.one]
urls = ["{url}"]
[gateway.routes.small]
targets = [{{ upstream = "one", model = "tiny" }}]
"""


@dataclass(frozen=True)
class Served:
    """A server with something of most kinds in it, and a route to a model."""

    url: str
    known: Mapping[str, Sequence[str]]
    """Names of things that exist, by parameter."""
    backend: Misbehaving
    """The model server behind the route."""


@contextmanager
def served(folder: Path) -> Iterator[Served]:
    with model_server.serving() as backend:
        (folder / "ragstone.toml").write_text(SERVER.format(url=backend.url), encoding="utf-8")
        _put_model(folder)
        running = start(folder)
        try:
            running.wait_until_ready()
            yield Served(running.url, _filled(running.url), backend)
        finally:
            running.stop()


def _put_model(folder: Path) -> None:
    """Store a classical model, before anybody serves it."""
    database = open_migrated(folder / "data" / "ragstone.db")
    try:
        store = open_store(folder / "data" / "artifacts", database)
        classical_models.put(store, classical_models.classifier(), folder / "model")
    finally:
        database.close()


def _filled(url: str) -> dict[str, Sequence[str]]:
    with httpx.Client(base_url=f"{url}/v1", timeout=60) as client:
        form = {"files": {"file": ("a.txt", b"27 days.")}, "data": {"purpose": "assistants"}}
        file_id = client.post("/files", **form).json()["id"]
        store = client.post("/vector_stores", json={"name": "generated"}).json()["id"]
        batches = f"/vector_stores/{store}/file_batches"
        batch = client.post(batches, json={"file_ids": [file_id]}).json()
        while client.get(f"{batches}/{batch['id']}").json()["status"] == "in_progress":
            time.sleep(0.02)
        begun = {"job": "ingest_attached", "arguments": {"collection": store}}
        job = client.post("/jobs", json=begun)
        while not client.get(f"/jobs/{job.json()['id']}").json()["finished_at"]:
            time.sleep(0.02)
    return {
        "job_id": [job.json()["id"]],
        "job": ["ingest_attached"],
        "vector_store_id": [store],
        "file_id": [file_id],
        "batch_id": [batch["id"]],
        "model": [f"rag/{store}", "small", "churn"],
        "model_name": ["churn"],
        "model_version": ["1"],
        "collection": [store],
    }


@dataclass
class Tried:
    """What was asked, and with which outcome."""

    by_operation: Counter[str] = field(default_factory=Counter)
    by_status: Counter[int] = field(default_factory=Counter)


def try_all(
    there: Served,
    mode: GenerationMode,
    subtests: pytest.Subtests,
    *,
    examples: int,
    without: Collection[str] = (),
) -> Tried:
    """Ask every operation; each answer has to be as OpenAPI says, and none may be a 5xx."""
    schema = schemathesis.openapi.from_url(f"{there.url}/openapi.json")
    found = [result.ok() for result in schema.get_all_operations()]
    operations = [operation for operation in found if operation.label not in without]
    assert len(operations) >= 80
    tried = Tried(Counter({operation.label: 0 for operation in operations}))
    with requests.Session() as session:
        for operation in operations:
            turns: dict[str, int] = {}

            def ask(
                case: schemathesis.Case, label: str = operation.label, turns: Any = turns
            ) -> None:
                if mode is GenerationMode.POSITIVE:
                    _point_at_what_exists(case, there.known, turns)
                tried.by_operation[label] += 1
                answer = case.call_and_validate(checks=HELD, session=session)
                tried.by_status[answer.status_code] += 1

            with subtests.test(operation.label, mode=mode.name), suppress(Unsatisfiable):
                _for_each(operation.as_strategy(generation_mode=mode), ask, examples=examples)
    return tried


def _for_each(cases: Any, ask: Callable[[schemathesis.Case], None], *, examples: int) -> None:
    """Generate some cases, the same in every run."""

    @given(case=cases)
    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    def run(case: schemathesis.Case) -> None:
        ask(case)

    run()


def _point_at_what_exists(
    case: schemathesis.Case, known: Mapping[str, Sequence[str]], turns: dict[str, int]
) -> None:
    """Every other request names what is there: otherwise nearly all would end as a 404.

    A case that is asked again, to be reduced, is changed as it was before.
    """
    turn = turns.setdefault(repr((case.path_parameters, case.query, case.body)), len(turns))
    if case.method == "DELETE" or turn % 2:
        return
    for part in (case.path_parameters, case.body):
        if isinstance(part, dict):
            for name in known.keys() & part.keys():
                part[name] = known[name][turn // 2 % len(known[name])]

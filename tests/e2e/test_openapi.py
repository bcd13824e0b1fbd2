"""What OpenAPI promises, against generated requests: no 5xx, and answers of the stated shape."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.specs.openapi import checks

EXAMPLES = 10
"""Of each operation."""
HELD = [
    schemathesis.checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
]


@pytest.fixture(scope="module")
def known(server: Any) -> dict[str, str]:
    """Names of things that exist, by parameter."""
    with httpx.Client(base_url=f"{server.url}/v1", timeout=60) as client:
        form = {"files": {"file": ("a.txt", b"27 days.")}, "data": {"purpose": "assistants"}}
        file_id = client.post("/files", **form).json()["id"]
        store = client.post("/vector_stores", json={"name": "generated"}).json()["id"]
        url = f"/vector_stores/{store}/file_batches"
        batch = client.post(url, json={"file_ids": [file_id]}).json()
        while client.get(f"{url}/{batch['id']}").json()["status"] == "in_progress":
            time.sleep(0.02)
        start = {"job": "ingest_attached", "arguments": {"collection": store}}
        job = client.post("/jobs", json=start)
        while not client.get(f"/jobs/{job.json()['id']}").json()["finished_at"]:
            time.sleep(0.02)
    return {
        "job_id": job.json()["id"],
        "job": "ingest_attached",
        "vector_store_id": store,
        "file_id": file_id,
        "batch_id": batch["id"],
        "model": f"rag/{store}",
        "collection": store,
    }


def test_no_request_breaks_it_and_every_answer_is_as_described(
    server: Any, known: dict[str, str], subtests: pytest.Subtests
) -> None:
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    operations = [result.ok() for result in schema.get_all_operations()]
    assert len(operations) >= 25
    answered: Counter[int] = Counter()
    with requests.Session() as session:
        for operation, mode in itertools.product(operations, GenerationMode):
            if mode is GenerationMode.NEGATIVE and operation.label == "POST /v1/files":
                continue  # whatever a form's field holds is a string, and so never of a wrong type

            def ask(
                case: schemathesis.Case, is_good: bool = mode is GenerationMode.POSITIVE
            ) -> None:
                if is_good:
                    point_at_what_exists(case, known)
                answered[case.call_and_validate(checks=HELD, session=session).status_code] += 1

            with subtests.test(operation.label, mode=mode.name), suppress(Unsatisfiable):
                for_each(operation.as_strategy(generation_mode=mode), ask)
    # Of some operations no request is wrong by itself; all in all, much must have been tried.
    assert answered[200] > 50
    assert answered[400] > 50


def for_each(cases: Any, ask: Callable[[schemathesis.Case], None]) -> None:
    """Generate some cases, the same in every run."""

    @given(case=cases)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    def run(case: schemathesis.Case) -> None:
        ask(case)

    run()


def point_at_what_exists(case: schemathesis.Case, known: dict[str, str]) -> None:
    """Half of the requests name what is there: otherwise nearly all would end as a 404."""
    if case.method == "DELETE" or len(repr((case.path_parameters, case.query, case.body))) % 2:
        return
    for part in (case.path_parameters, case.body):
        if isinstance(part, dict):
            for name in known.keys() & part.keys():
                part[name] = known[name]

"""A worker in this process: one at a time, stops in order, survives a database that is away."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from infra.database.engine import Database
from infra.errors import Conflict
from infra.jobs.attempt import Attempt
from infra.jobs.definitions import Registry
from infra.jobs.queue import Jobs
from infra.jobs.worker import Worker

ROOT = Path(__file__).parents[3]


def test_second_worker_in_a_process_is_refused(
    jobs: Jobs, start_worker: Callable[..., Worker]
) -> None:
    start_worker()
    with pytest.raises(Conflict, match="already"):
        Worker(jobs).start()


def test_job_goes_on_after_its_worker_stopped_in_order(
    jobs: Jobs, registry: Registry, start_worker: Callable[..., Worker]
) -> None:
    ran: list[str] = []
    reached = threading.Event()

    @registry.job("resumed")
    def resumed(attempt: Attempt) -> str:
        attempt.step("once", lambda: ran.append("once"))
        if not reached.is_set():
            reached.set()
            attempt.wait(3600)
        return attempt.step("end", lambda: "ended")

    worker = start_worker()
    job_id = jobs.start("resumed").id
    assert reached.wait(10)
    assert worker.stop()
    assert jobs.get(job_id).state == "queued"
    assert [each.outcome for each in jobs.attempts(job_id)] == ["released"]
    start_worker()
    assert jobs.wait(job_id).result == "ended"
    assert ran == ["once"]
    assert jobs.get(job_id).failures == jobs.get(job_id).crashes == 0


def test_dbos_keeps_no_pickle(
    jobs: Jobs, registry: Registry, database: Database, start_worker: Callable[..., Worker]
) -> None:
    @registry.job("kept")
    def kept(attempt: Attempt) -> None:
        attempt.step("value", lambda: {"a": 1})

    start_worker()
    jobs.wait(jobs.start("kept").id)
    table = "operation_outputs" if database.is_sqlite else "dbos.operation_outputs"
    with database.read() as connection:
        (row,) = connection.execute(text(f"SELECT output, serialization FROM {table}"))
    assert tuple(row) == ('{"a": 1}', "ragstone_json")


def test_workflows_carry_our_version_so_that_a_deploy_strands_none(
    jobs: Jobs, registry: Registry, database: Database, start_worker: Callable[..., Worker]
) -> None:
    @registry.job("kept")
    def kept(attempt: Attempt) -> None:
        attempt.step("value", lambda: 1)

    start_worker()
    jobs.wait(jobs.start("kept").id)
    table = "workflow_status" if database.is_sqlite else "dbos.workflow_status"
    with database.read() as connection:
        versions = connection.scalars(text(f"SELECT application_version FROM {table}")).all()
    assert set(versions) == {"1"}, "DBOS's own default is a hash of the code"


def test_worker_goes_on_when_the_database_was_locked_for_a_while(
    jobs: Jobs, registry: Registry, database: Database, start_worker: Callable[..., Worker]
) -> None:
    @registry.job("patient")
    def patient(attempt: Attempt) -> str:
        return attempt.step("wait", lambda: "done")

    start_worker()
    with database.write() as connection:
        if not database.is_sqlite:
            connection.execute(text("LOCK TABLE job, job_worker, dbos.workflow_status"))
        time.sleep(2)  # longer than the lease of these tests
    assert jobs.wait(jobs.start("patient").id).result == "done"


def test_job_that_ignores_the_stop_is_left_behind_and_its_result_dropped(
    jobs: Jobs, registry: Registry, start_worker: Callable[..., Worker]
) -> None:
    begun, go_on, over = threading.Event(), threading.Event(), threading.Event()

    @registry.job("deaf")
    def deaf(attempt: Attempt) -> str:
        begun.set()
        go_on.wait(20)
        over.set()
        return f"from {attempt.fence}"

    worker = start_worker()
    job_id = jobs.start("deaf").id
    assert begun.wait(10)
    assert not worker.stop(grace_seconds=0.2)
    assert jobs.get(job_id).state == "queued"
    go_on.set()
    assert over.wait(10)
    start_worker()
    finished = jobs.wait(job_id)
    first, second = jobs.attempts(job_id)
    assert finished.result == f"from {second.fence}"
    assert (first.outcome, second.outcome) == ("released", "succeeded")


def test_queue_is_used_without_loading_dbos() -> None:
    script = (
        "import sys, infra.jobs.queue, infra.jobs.worker, infra.jobs.external;"
        "print(sorted({'dbos', 'croniter', 'psutil'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "[]\n", done.stderr

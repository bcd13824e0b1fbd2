"""A queue with a small registry, and workers in this process that beat fast."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from infra.database.engine import Database
from infra.jobs.admission import Capacity, TenantLimits
from infra.jobs.definitions import Registry, Resources
from infra.jobs.queue import Jobs
from infra.jobs.worker import Timing, Worker

FAST = Timing(poll_seconds=0.05, beat_seconds=0.1, lease_seconds=1.0, orphan_seconds=0.5)


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
def jobs(database: Database, registry: Registry) -> Jobs:
    return Jobs(database, registry)


@pytest.fixture
def start_worker(jobs: Jobs) -> Iterator[Callable[..., Worker]]:
    """Start the worker of this process; the test defines its jobs before."""
    started: list[Worker] = []

    def start(*, slots: int = 4, limits: TenantLimits | None = None, **options: Any) -> Worker:
        capacity = Capacity(options.pop("resources", Resources(cpu=slots)), slots)
        worker = Worker(jobs, capacity=capacity, limits=limits, timing=FAST, **options)
        worker.start()
        started.append(worker)
        return worker

    yield start
    for worker in started:
        if not worker.is_stopped:
            worker.stop(grace_seconds=5)
    before = time.monotonic()
    while any(each.name.startswith("dbos-executor") for each in threading.enumerate()):
        assert time.monotonic() - before < 5, "a job's thread outlived its worker"
        time.sleep(0.01)

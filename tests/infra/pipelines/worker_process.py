"""A process that runs pipelines for the fault tests; it is killed from outside."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from infra.artifacts.folder import Folder
from infra.artifacts.store import ArtifactStore
from infra.database.engine import Database
from infra.jobs.admission import Capacity
from infra.jobs.definitions import Registry, Resources
from infra.jobs.queue import Jobs
from infra.jobs.worker import Timing, run_worker
from infra.pipelines import background
from infra.pipelines.execution import Executor
from infra.pipelines.foreground import run_here
from infra.pipelines.records import Run
from infra.pipelines.runs import Runs
from infra.pipelines.workplace import Surroundings

TIMING = Timing(poll_seconds=0.05, beat_seconds=0.2, lease_seconds=2.5)


def main(database_url: str, folder: str, run_id: str = "") -> None:
    """Run jobs until stopped, or one run in the foreground."""
    root = Path(folder)
    database = Database(database_url)
    runs = Runs(database)
    registry = Registry()
    jobs = Jobs(database, registry)
    store = ArtifactStore(Folder(root / "store"), database)

    def ended(connection: Any, run: Run) -> None:
        background.queue_ready(jobs, runs, connection, run=run)

    around = Surroundings(root / "work", {"python": (sys.executable,)}, dict(os.environ))
    executor = Executor(store, runs, around, ended=ended)
    if run_id:
        run_here(executor, run_id, parallel=4)
        return
    background.define(registry, lambda: executor)
    run_worker(database_url, registry, capacity=Capacity(Resources(cpu=100), 4), timing=TIMING)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Runs a pipeline in the process at hand: branches side by side, ended by Ctrl-C."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress

from sqlalchemy import Connection

from infra.errors import Conflict, RagstoneError
from infra.jobs.attempt import Interrupted
from infra.jobs.definitions import Resources
from infra.pipelines.execution import Executor
from infra.pipelines.records import Run, StepRecord
from infra.pipelines.runs import Runs

LOOK_SECONDS = 1.0
"""How often a running step looks whether somebody else has cancelled its run."""
TELL_SECONDS = 0.2
KEPT_RUNS = 10
"""Finished runs of a pipeline whose folders stay, with what their programs said."""
MAX_PARALLEL = 64


class Here:
    """Says when a step that this process runs must end.

    Args:
        runs: where its run stands.
        run_id: the run.
        stop: set when everything is to end.
    """

    def __init__(self, runs: Runs, run_id: str, stop: threading.Event) -> None:
        self._runs = runs
        self._run_id = run_id
        self._stop = stop
        self._looked_at = time.monotonic()

    def wait(self, seconds: float) -> None:
        self._stop.wait(seconds)
        now = time.monotonic()
        if now - self._looked_at > LOOK_SECONDS:
            self._looked_at = now
            if self._runs.get(self._run_id).is_finished:
                self._stop.set()
        if self._stop.is_set():
            raise Interrupted("cancelled")

    def guard(self, connection: Connection) -> None:
        """Nobody but `Runs.note` fences what runs here."""


def run_here(
    executor: Executor,
    run_id: str,
    *,
    parallel: int | None = None,
    changed: Callable[[Run], object] = id,
) -> Run:
    """Run the steps of a run that are open, side by side where they can be.

    Args:
        executor: runs each step.
        run_id: the run.
        parallel: steps at once; by default as many as there are cores.
        changed: called now and then with how the run stands.

    Raises:
        KeyboardInterrupt: it was raised here; the run is cancelled, its programs are ended.
        RagstoneError: what is not a step's own fault, such as a full disk.
    """
    clear(executor, executor.runs.get(run_id).pipeline.name)
    work = _Work(executor, run_id, min(parallel or os.cpu_count() or 1, MAX_PARALLEL))
    try:
        work.run(changed)
    except BaseException as error:
        work.stop.set()
        work.pool.shutdown()
        executor.runs.cancel(run_id, reason=_why(error))
        changed(executor.runs.get(run_id))
        raise
    work.pool.shutdown()
    run = executor.runs.get(run_id)
    changed(run)
    return run


def step_here(executor: Executor, run_id: str, name: str) -> StepRecord:
    """Run one step of a run that somebody else leads, in this process; Ctrl-C cancels it."""
    stop = threading.Event()
    control = Here(executor.runs, run_id, stop)
    with ThreadPoolExecutor(1, thread_name_prefix="pipeline") as pool:
        future = pool.submit(executor.execute, run_id, name, control)
        try:
            return future.result()
        except BaseException:
            stop.set()
            raise


class _Work:
    def __init__(self, executor: Executor, run_id: str, parallel: int) -> None:
        self.executor = executor
        self.run_id = run_id
        self.parallel = parallel
        self.stop = threading.Event()
        self.pool = ThreadPoolExecutor(parallel, thread_name_prefix="pipeline")
        self.running: dict[Future[StepRecord], str] = {}

    def run(self, changed: Callable[[Run], object]) -> None:
        while True:
            run = self.executor.runs.get(self.run_id)
            changed(run)
            if run.is_finished and not self.running:
                return
            self._submit(run)
            if not self.running:
                raise Conflict(f"Run {self.run_id!r} waits for steps that another process runs")
            done, _ = wait(self.running, timeout=TELL_SECONDS, return_when=FIRST_COMPLETED)
            for future in done:
                del self.running[future]
                with suppress(Interrupted):  # somebody else has cancelled the run
                    future.result()

    def _submit(self, run: Run) -> None:
        free = Resources.of_this_machine()
        for name in self.running.values():
            free = free.less(_needs(run, name))
        for name in run.ready():
            if name in self.running.values() or len(self.running) >= self.parallel:
                continue
            # What is larger than the machine runs alone rather than never.
            if not self.running or _needs(run, name).fits(free):
                control = Here(self.executor.runs, self.run_id, self.stop)
                future = self.pool.submit(self.executor.execute, self.run_id, name, control)
                self.running[future] = name
                free = free.less(_needs(run, name))


def clear(executor: Executor, pipeline: str) -> None:
    """End what processes that died left behind, and remove the folders of old runs."""
    runs = executor.runs.list(pipeline=pipeline, limit=4 * KEPT_RUNS)
    for run in runs:
        if run.is_abandoned:
            for name in run.steps:
                executor.abandon(run.id, name)
            executor.runs.cancel(run.id, reason="its process died")
    finished = [run for run in runs if run.is_finished]
    for run in finished:
        shutil.rmtree(executor.around.folder / run.id / "project", ignore_errors=True)
    for run in finished[KEPT_RUNS:]:
        shutil.rmtree(executor.around.folder / run.id, ignore_errors=True)


def _needs(run: Run, name: str) -> Resources:
    needs = run.pipeline.steps[name].resources
    return Resources(needs.cpu, needs.gpu, needs.memory)


def _why(error: BaseException) -> str:
    if isinstance(error, RagstoneError):
        return error.message
    return "stopped" if isinstance(error, KeyboardInterrupt) else type(error).__name__

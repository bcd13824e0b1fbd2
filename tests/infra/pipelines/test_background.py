"""Runs as jobs: each step queues those it made ready; cancelled, given up and found again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from infra.jobs.admission import Capacity
from infra.jobs.definitions import Registry, Resources
from infra.jobs.external import attach
from infra.jobs.queue import Jobs
from infra.jobs.worker import Timing, Worker
from infra.pipelines import background
from infra.pipelines.execution import Executor
from infra.pipelines.records import Run

ONE_KIND = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
FAST = Timing(poll_seconds=0.05, beat_seconds=0.1, lease_seconds=2.0, orphan_seconds=5.0)


@pytest.fixture
def queue(either_bench: Any) -> Jobs:
    """The queue of a project; its steps queue what they make ready."""
    bench = either_bench
    registry = Registry()
    jobs = Jobs(bench.database, registry)

    def ended(connection: Any, run: Run) -> None:
        background.queue_ready(jobs, bench.runs, connection, run=run)

    executor = Executor(bench.store, bench.runs, bench.around, ended=ended)
    background.define(registry, lambda: executor)
    return jobs


@pytest.fixture
def work(queue: Jobs) -> Iterator[Callable[[], Worker]]:
    started: list[Worker] = []

    def start() -> Worker:
        worker = Worker(queue, capacity=Capacity(Resources(cpu=8), 4), timing=FAST)
        worker.start()
        started.append(worker)
        return worker

    yield start
    for worker in started:
        assert worker.stop(grace_seconds=10)


def finished(bench: Any, run_id: str) -> Run:
    deadline = time.monotonic() + 40
    while not (run := background.reconcile(bench.runs, run_id)).is_finished:
        assert time.monotonic() < deadline, {n: s.state for n, s in run.steps.items()}
        time.sleep(0.05)
    return run


def test_steps_run_as_jobs_in_their_order(either_bench: Any, queue: Jobs, work: Any) -> None:
    bench = either_bench
    run = background.submit(queue, bench.runs, bench.start(mode="jobs").id)
    assert [step.state for step in run.steps.values()] == ["queued"] + ["waiting"] * 3
    background.submit(queue, bench.runs, run.id)
    work()
    done = finished(bench, run.id)
    assert done.state == "succeeded"
    assert bench.read("dataset/upper", "faq.txt") == "TWO WORDS\nTHREE MORE WORDS"
    jobs = queue.list(name=background.STEP)
    assert {job.key for job in jobs} == {f"{run.id}/{name}" for name in done.steps}
    again = background.submit(queue, bench.runs, bench.start(mode="jobs").id)
    states = {step.state for step in finished(bench, again.id).steps.values()}
    assert states == {"cached"}


@ONE_KIND
def test_failed_step_is_a_dead_letter_and_blocks_the_rest(
    either_bench: Any, queue: Jobs, work: Any
) -> None:
    bench = either_bench
    bench.write("steps.py", "def clean(raw, clean, minimum):\n    raise SystemExit(4)\n")
    run = background.submit(queue, bench.runs, bench.start(mode="jobs").id)
    work()
    done = finished(bench, run.id)
    assert [step.state for step in done.steps.values()] == [
        "succeeded",
        "failed",
        "blocked",
        "blocked",
    ]
    deadline = time.monotonic() + 10
    while not (dead := queue.dead_letters()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert "exit code 4" in str(dead[0].error)


@ONE_KIND
def test_cancelled_run_ends_what_runs_and_what_waits(
    either_bench: Any, queue: Jobs, work: Any
) -> None:
    bench = either_bench
    mark = bench.root / "began"
    bench.write(
        "pipeline.yaml",
        f"pipeline: slow\nsteps:\n  s: {{run: [sh, -c, 'touch {mark}; sleep 60']}}\n"
        "  t: {run: 'true', after: [s]}\n",
    )
    run = background.submit(queue, bench.runs, bench.start(mode="jobs").id)
    work()
    deadline = time.monotonic() + 20
    while not mark.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert background.cancel(queue, bench.runs, run.id).state == "cancelled"
    job_id = str(bench.runs.get(run.id).steps["s"].job_id)
    assert queue.wait(job_id).state == "cancelled"


@ONE_KIND
def test_run_cancelled_while_no_worker_is_there_ends_its_programs_with_the_next(
    either_bench: Any, queue: Jobs, work: Any
) -> None:
    bench = either_bench
    mark = bench.root / "began"
    bench.write(
        "pipeline.yaml",
        f"pipeline: slow\nsteps:\n  s: {{run: [sh, -c, 'touch {mark}; sleep 60']}}\n",
    )
    run = background.submit(queue, bench.runs, bench.start(mode="jobs").id)
    worker = work()
    deadline = time.monotonic() + 20
    while not mark.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    worker.stop()
    step = bench.runs.get(run.id).steps["s"]
    program = attach(bench.around.folder / run.id / "s" / str(step.work) / "state")
    assert background.cancel(queue, bench.runs, run.id).state == "cancelled"
    assert program.members()
    work()
    assert queue.wait(str(step.job_id)).state == "cancelled"
    assert program.members() == []


@ONE_KIND
def test_job_that_somebody_cancelled_ends_its_run(either_bench: Any, queue: Jobs) -> None:
    bench = either_bench
    run = background.submit(queue, bench.runs, bench.start(mode="jobs").id)
    queue.cancel(str(run.steps["raw"].job_id))
    done = background.reconcile(bench.runs, run.id)
    assert done.state == "cancelled"
    assert [step.state for step in done.steps.values()] == ["cancelled"] + ["blocked"] * 3

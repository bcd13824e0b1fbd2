"""Runs a pipeline as jobs: a job for each step, queued by the step that made it ready."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection, select

from infra.errors import NotFound
from infra.jobs.attempt import Attempt, Interrupted
from infra.jobs.definitions import Behaviour, Json, Options, Registry, Resources, Retries
from infra.jobs.queue import Jobs
from infra.jobs.tables import job
from infra.pipelines.execution import Executor
from infra.pipelines.records import Run
from infra.pipelines.runs import LOCK, Runs
from infra.pipelines.workplace import StepFailed

STEP = "pipeline.step"
RETRIES = Retries(permanent=(*Retries().permanent, StepFailed))
"""A step counts its own failures; what is tried again here is what is not its fault."""


def define(registered: Registry, executor: Callable[[], Executor]) -> None:
    """Register the job that runs one step; the executor's `ended` has to queue what follows."""

    def step(attempt: Attempt, *, run: str, step: str) -> Json:
        try:
            attempt.check()
        except Interrupted as interruption:
            if interruption.reason == "cancelled":
                executor().abandon(run, step)
            raise
        done = executor().execute(run, step, attempt)
        if done.state == "failed":
            raise StepFailed(f"step {step!r} of run {run!r}: {done.error}")
        return {"state": done.state, "outputs": [each.reference for each in done.outputs.values()]}

    registered.job(STEP, retries=RETRIES, behaviour=Behaviour(steps=False, detached=True))(step)


def queue_ready(jobs: Jobs, runs: Runs, connection: Connection, *, run: Run) -> None:
    """Queue the steps that can run now, in the transaction that made them ready."""
    if run.mode != "jobs":
        return
    queued = {}
    for name in run.ready():
        needs = run.pipeline.steps[name].resources
        started = jobs.start(
            STEP,
            {"run": run.id, "step": name},
            options=Options(
                key=f"{run.id}/{name}",
                resources=Resources(needs.cpu, needs.gpu, needs.memory),
            ),
            connection=connection,
        )
        queued[name] = started.id
    runs.queue(connection, run.id, jobs=queued)


def submit(jobs: Jobs, runs: Runs, run_id: str) -> Run:
    """Have workers run a run; safe to call again."""
    with runs.database.write(lock=LOCK) as connection:
        queue_ready(jobs, runs, connection, run=runs.load(connection, run_id))
    return runs.get(run_id)


def reconcile(runs: Runs, run_id: str) -> Run:
    """Enter what became of jobs that ended without a word to their run: given up or cancelled."""
    run = runs.get(run_id)
    waited_for = {
        step.job_id: step.name
        for step in run.steps.values()
        if step.job_id is not None and not step.is_finished
    }
    if not waited_for:
        return run
    with runs.database.write(lock=LOCK) as connection:
        ended = connection.execute(
            select(job.c.id, job.c.state, job.c.error).where(
                job.c.id.in_(waited_for), job.c.state.in_(("failed", "cancelled"))
            )
        ).all()
        for row in ended:
            held = runs.load(connection, run_id).steps[waited_for[row.id]]
            if not held.is_finished:
                runs.end(connection, held, state=row.state, error=row.error or row.state)
        return runs.load(connection, run_id)


def cancel(jobs: Jobs, runs: Runs, run_id: str) -> Run:
    """End a run: what waits at once, what runs as soon as it looks; its programs are ended."""
    run = runs.get(run_id)
    for step in run.steps.values():
        if step.job_id is not None and not step.is_finished:
            try:
                jobs.cancel(step.job_id)
            except NotFound:
                continue
    return runs.cancel(run_id, reason="cancelled")

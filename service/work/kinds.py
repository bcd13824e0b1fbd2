"""Every kind of job this release has code for, registered in one place, and who runs them."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from infra.errors import Conflict, StorageFailed
from infra.jobs.admission import Capacity, TenantLimits
from infra.jobs.definitions import Registry, Resources
from infra.jobs.records import Job
from infra.settings import Jobs as Options
from infra.settings import Settings
from service.fine_tuning import running as fine_tuning
from service.models import adapter_retraining, batch_predicting, comparing, retraining
from service.retrieval_tuning import jobs as tuning
from service.work import (
    building,
    erasing,
    ingesting,
    launching,
    pipelining,
    reindexing,
    snapshots,
    syncing,
    watching,
)

if TYPE_CHECKING:
    from infra.jobs.worker import Worker
    from service.wiring import Components


def registry(parts: Components) -> Registry:
    """Return the jobs of the product; each `define(registered, parts)` adds those of its module."""
    registered = Registry()
    for define in (
        ingesting.define,
        building.define,
        snapshots.define,
        syncing.define,
        launching.define,
        fine_tuning.define,
        pipelining.define,
        erasing.define,
        watching.define,
        batch_predicting.define,
        comparing.define,
        retraining.define,
        adapter_retraining.define,
        tuning.define,
        reindexing.define,
    ):
        define(registered, parts)
    return registered


def open_worker(parts: Components, *, lazy: bool) -> Worker:
    """Return a worker of the product's jobs, not yet started; `lazy` as in `Worker`."""
    from infra.jobs.worker import Timing, Worker

    options = parts.settings.jobs
    return Worker(
        parts.jobs,
        capacity=capacity(options),
        limits=TenantLimits(default=options.jobs_per_tenant),
        timing=Timing(retention=timedelta(days=options.keep_days)),
        lazy=lazy,
    )


def capacity(options: Options) -> Capacity:
    """Return what a worker takes on: what the settings say, else what the machine has."""
    machine = Resources.of_this_machine()
    return Capacity(
        Resources(
            cpu=machine.cpu if options.cpu is None else options.cpu,
            gpu=machine.gpu if options.gpu is None else options.gpu,
            memory_bytes=(
                machine.memory_bytes if options.memory_bytes is None else options.memory_bytes
            ),
        ),
        slots=options.slots,
    )


def run(settings: Settings) -> None:
    """Run jobs in this process, from its main thread, until SIGTERM or SIGINT.

    Raises:
        InvalidConfiguration: the settings do not fit.
        StorageFailed: the database cannot be reached.
    """
    from infra.jobs.worker import run_until_asked
    from service.wiring import Components

    parts = Components(settings)
    # On one thread, here: jobs run in many.
    for part in ("embedder", "builds", "ingester", "metrics", "jobs"):
        getattr(parts, part)
    ingesting.take_up(parts)
    run_until_asked(open_worker(parts, lazy=False), close=parts.close)


def watch(parts: Components) -> None:
    """Have the metrics of this process tell how much there is to do."""
    parts.metrics.watch("documents_waiting", lambda: ingesting.count_waiting(parts))
    parts.metrics.watch("interactions_spooled_bytes", lambda: parts.interactions.spooled_bytes())
    for name in ("queued", "running", "failed", "oldest_seconds"):
        parts.metrics.watch(f"jobs_{name}", partial(_depth, parts, name))


def _depth(parts: Components, name: str) -> float:
    try:
        return float(getattr(parts.jobs.depth(), name))
    except StorageFailed:
        return float("nan")


def cancel(parts: Components, job_id: str) -> Job:
    """End a job; the attached files that an ingest has yet to read stay unread, as `cancelled`."""
    job = parts.jobs.get(job_id)
    if job.name == ingesting.ATTACHED and not job.is_finished:
        ingesting.leave_unread(parts, str(job.arguments.get("collection")))
    return parts.jobs.cancel(job_id)


def requeue(parts: Components, job_id: str, *, from_scratch: bool) -> Job:
    """Give a failed or cancelled job another chance.

    Raises:
        NotFound: there is no such job.
        Conflict: it is neither; or it works for a fine-tuning that is paused, and would train while
            that says that it does not.
    """
    job = parts.jobs.get(job_id)
    if job.name == fine_tuning.JOB:
        paused = fine_tuning.paused_for(parts, job)
        if paused is not None:
            raise Conflict(
                f"Job {job_id!r} works for {paused!r}, which is paused; resume that instead: "
                f"POST /v1/fine_tuning/jobs/{paused}/resume"
            )
    return parts.jobs.requeue(job_id, from_scratch=from_scratch)

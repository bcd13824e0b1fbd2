"""Fine-tuning jobs as a caller orders them: made, looked at, paused, resumed, cancelled."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import delete, select

from infra.database.fine_tuning_tables import tuned_model
from infra.datasets.datasets import KIND as DATASET
from infra.errors import Conflict, InvalidRequest, NotFound, RateLimited
from infra.fine_tuning_settings import Tunable
from infra.jobs.definitions import Options
from infra.security import new_id
from retrieval.paging import Page
from service.callers import Caller
from service.fine_tuning import running
from service.fine_tuning.records import (
    Asked,
    FineTuningJob,
    FineTuningJobs,
    Metadata,
    Said,
    Status,
)
from service.fine_tuning.specifying import Wanted, hyperparameters, specify

if TYPE_CHECKING:
    from service.wiring import Components

PURPOSE = "fine-tune"
MAX_SEED = 2**31
LOST = "Its work is not in the queue any more, and nobody wrote down how it ended"


@dataclass(frozen=True, slots=True)
class Order:
    """What a client asks for, checked as far as that needs nothing else; None is left to us."""

    model: str
    training_file: str
    validation_file: str | None = None
    method: str = "supervised"
    epochs: int | None = None
    rows_per_step: int | None = None
    multiplier: float | None = None
    beta: float | None = None
    suffix: str | None = None
    seed: int | None = None
    metadata: dict[str, str] | None = None


class Orders:
    """The fine-tuning jobs of one caller."""

    def __init__(self, parts: Components, caller: Caller) -> None:
        self._parts = parts
        self._caller = caller

    @cached_property
    def jobs(self) -> FineTuningJobs:
        """As the caller sees them, without what the queue knows of them."""
        return FineTuningJobs(self._parts.database).seen_by(self._caller.access)

    def create(self, order: Order) -> FineTuningJob:
        """Take an order; when this returns, its work is queued.

        Raises:
            NotFound: there is no such model or file, or it is not the caller's.
            InvalidRequest: a file is for something else.
            RateLimited: too many jobs of the caller's tenant wait.
        """
        from training.spec import as_json

        tunable = self._tunable(order.model)
        job_id, now = new_id("ftjob-"), datetime.now(UTC)
        seed = secrets.randbelow(MAX_SEED) if order.seed is None else order.seed
        wanted = Wanted(
            method=order.method,
            seed=seed,
            train=self._rows("training_file", order.training_file),
            held_out=order.validation_file and self._rows("validation_file", order.validation_file),
            epochs=order.epochs,
            rows_per_step=order.rows_per_step,
            multiplier=order.multiplier,
            beta=order.beta,
            max_rank=self._max_rank(order.model, tunable),
        )
        spec = specify(job_id, order.model, tunable, wanted)
        told = {"hyperparameters": hyperparameters(spec, wanted)}
        asked = Asked(
            order.model,
            order.training_file,
            order.validation_file,
            {"type": order.method, order.method: told},
            order.suffix,
            seed,
            order.metadata,
        )
        with self._parts.database.write() as connection:
            self._refuse_too_many(self.jobs.unfinished(connection, self._caller.tenant))
            queued = self._parts.jobs.start(
                running.JOB,
                {"job": job_id},
                options=Options(tenant=self._caller.tenant or "default"),
                connection=connection,
            )
            made = FineTuningJob(
                id=job_id,
                tenant=self._caller.tenant,
                job_id=queued.id,
                asked=asked,
                specification=as_json(spec),
                status="queued",
                created_at=now,
            )
            self.jobs.add(connection, made)
            self.jobs.say(connection, job_id, Said(f"Created fine-tuning job: {job_id}"))
        self._parts.jobs.tell()
        return made

    def get(self, job_id: str) -> FineTuningJob:
        """Return a job as it stands now."""
        return self._standing(self.jobs.get(job_id))

    def list(self, *, limit: int, after: str | None, metadata: Metadata) -> Page[FineTuningJob]:
        """Return jobs as they stand now, the newest first."""
        return self.jobs.list(limit=limit, after=after, metadata=metadata).map(self._standing)

    def cancel(self, job_id: str) -> FineTuningJob:
        """End a job; its process is asked first.

        Raises:
            Conflict: it is finished.
        """
        job = self._unfinished(job_id, "cancelled")
        now = datetime.now(UTC)
        self._write(
            job,
            Said("The job was cancelled"),
            status="cancelled",
            paused=False,
            finished_at=now,
        )
        is_over = self._parts.jobs.cancel(job.job_id).is_finished
        cancelled = self.get(job_id)
        if is_over:
            running.abandon(self._parts, cancelled)
        return cancelled

    def pause(self, job_id: str) -> FineTuningJob:
        """Have a job's process write a checkpoint and end, or the job wait where it has none.

        Raises:
            Conflict: it is finished.
        """
        job = self._unfinished(job_id, "paused")
        if not job.paused:
            self._write(job, Said("The job was paused"), paused=True, estimated_finish=None)
            self._parts.jobs.cancel(job.job_id)
        return self.get(job_id)

    def resume(self, job_id: str) -> FineTuningJob:
        """Go on with a paused job from its last checkpoint.

        Raises:
            Conflict: it is not paused, or its process has yet to end.
        """
        job = self._unfinished(job_id, "resumed")
        if not job.paused:
            raise Conflict(f"Job {job_id!r} is {job.status}; only a paused one is resumed")
        if not self._parts.jobs.get(job.job_id).is_finished:
            raise Conflict(f"Job {job_id!r} is about to pause; try again in a moment")
        self._write(job, Said("The job was resumed"), paused=False, status="queued")
        self._parts.jobs.requeue(job.job_id, from_scratch=True)
        return self.get(job_id)

    def delete_model(self, name: str) -> None:
        """Have a tuned model served no more, and its adapter removed from the store.

        Raises:
            NotFound: the caller has none of this name.
        """
        tenant, table = self._caller.tenant, tuned_model
        own = [table.c.name == name] + ([] if tenant is None else [table.c.tenant == tenant])
        with self._parts.database.write() as connection:
            found = connection.execute(select(table.c.adapter).where(*own)).scalar_one_or_none()
            if found is None or not self._caller.may_use(name):
                raise NotFound("model", name)
            connection.execute(delete(table).where(*own))
        self._parts.artifacts.expire(found)

    def _tunable(self, model: str) -> Tunable:
        known = self._parts.settings.fine_tuning.models
        own = [name for name in known if self._may_tune(name, known[name])]
        if model not in own:
            raise NotFound("model", model, among=own)
        return known[model]

    def _may_tune(self, name: str, tunable: Tunable) -> bool:
        """Whether the model is the key's, and the route to it no other tenant's."""
        route = self._parts.routes.current.settings.routes.get(tunable.route or name)
        tenant = self._caller.tenant
        is_open = route is None or tenant is None or route.tenant in {None, tenant}
        return is_open and self._caller.may_use(name)

    def _rows(self, parameter: str, given: str) -> str:
        """Return what the specification calls the rows that a client named."""
        if given.startswith(f"{DATASET}/"):
            self._caller.require_operator()
            return str(self._parts.artifacts.find(given))
        found = self._parts.files.seen_by(self._caller.access).get(given)
        if found.purpose != PURPOSE:
            raise InvalidRequest(
                f"{parameter} {given!r} was uploaded for {found.purpose!r}; upload it with the "
                f"purpose {PURPOSE!r}",
                parameter=parameter,
            )
        return running.rows_of(parameter, found.filename)

    def _max_rank(self, name: str, tunable: Tunable) -> int | None:
        """Return the rank that the engine takes which is to serve what comes out."""
        settings = self._parts.settings
        route = settings.gateway.routes.get(tunable.route or name)
        if route is None:
            return None
        upstreams = [settings.gateway.upstreams[each.upstream] for each in route.targets]
        engines = [settings.engines[each.engine] for each in upstreams if each.engine]
        return min((each.max_lora_rank for each in engines), default=None)

    def _refuse_too_many(self, waiting: int) -> None:
        most = self._parts.settings.fine_tuning.max_waiting
        if waiting >= most:
            raise RateLimited(
                f"{waiting} fine-tuning jobs are not finished, and more than {most} may not be; "
                "cancel one, or wait for one to end",
                retry_after_seconds=60.0,
            )

    def _unfinished(self, job_id: str, what: str) -> FineTuningJob:
        job = self.get(job_id)
        if job.is_finished:
            raise Conflict(f"Job {job_id!r} has {_ended(job.status)}; it cannot be {what}")
        return job

    def _write(self, job: FineTuningJob, *said: Said, **values: Any) -> None:
        with self._parts.database.write() as connection:
            if not self.jobs.change(connection, job.id, **values):
                raise Conflict(f"Job {job.id!r} has ended meanwhile")
            self.jobs.say(connection, job.id, *said)

    def _standing(self, job: FineTuningJob) -> FineTuningJob:
        """Return a job as the queue knows it, if its own work could not write its end down."""
        if job.is_finished:
            return job
        if job.paused:
            return replace(job, status="paused", estimated_finish=None)
        try:
            queued = self._parts.jobs.get(job.job_id)
        except NotFound:
            return self._settled(job, "failed", LOST)
        if queued.state in ("failed", "cancelled"):
            return self._settled(job, queued.state, queued.error or LOST)
        return job

    def _settled(
        self, job: FineTuningJob, status: Literal["failed", "cancelled"], why: str
    ) -> FineTuningJob:
        error = job.error or {"code": "server_error", "message": why, "param": None}
        ended: dict[str, Any] = {
            "status": status,
            "error": error if status == "failed" else None,
            "finished_at": datetime.now(UTC),
        }
        with self._parts.database.write() as connection:
            self.jobs.change(connection, job.id, **ended)
        return replace(job, **ended)


def _ended(status: Status) -> str:
    return "been cancelled" if status == "cancelled" else status

"""Fine-tuning jobs as a caller orders them: made, looked at, paused, resumed, cancelled."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import Connection, delete, select

from infra.database.fine_tuning_tables import tuned_model
from infra.datasets.datasets import KIND as DATASET
from infra.errors import Conflict, InvalidRequest, NotFound, RateLimited
from infra.fine_tuning_settings import Tunable
from infra.jobs.definitions import Options
from infra.jobs.records import Job as Queued
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
            made = FineTuningJob(
                id=job_id,
                tenant=self._caller.tenant,
                job_id=self._queue(connection, job_id, self._caller.tenant),
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
        return self._standing(self.jobs.get(job_id))[0]

    def list(self, *, limit: int, after: str | None, metadata: Metadata) -> Page[FineTuningJob]:
        """Return jobs as they stand now, the newest first."""
        page = self.jobs.list(limit=limit, after=after, metadata=metadata)
        return Page(self._standing(*page.items), page.has_more)

    def cancel(self, job_id: str) -> FineTuningJob:
        """End a job; its process is asked first.

        Raises:
            Conflict: it is finished.
        """
        said, now = Said("The job was cancelled"), datetime.now(UTC)
        with self._unfinished(job_id, "cancelled") as (connection, job, queued):
            is_over = (
                queued is None
                or self._parts.jobs.cancel(queued.id, connection=connection).is_finished
            )
            ended = {"status": "cancelled", "paused": False, "finished_at": now}
            self.jobs.change(connection, job.id, **ended)
            self.jobs.say(connection, job.id, said)
        self._parts.jobs.tell()
        cancelled = self.get(job_id)
        if is_over:
            running.abandon(self._parts, cancelled)
        return cancelled

    def pause(self, job_id: str) -> FineTuningJob:
        """Have a job's process write a checkpoint and end, or the job wait where it has none.

        Raises:
            Conflict: it is finished.
        """
        with self._unfinished(job_id, "paused") as (connection, job, _):
            if not job.paused:
                self._parts.jobs.cancel(job.job_id, connection=connection)
                self.jobs.change(connection, job.id, paused=True, estimated_finish=None)
                self.jobs.say(connection, job.id, Said("The job was paused"))
        self._parts.jobs.tell()
        return self.get(job_id)

    def resume(self, job_id: str) -> FineTuningJob:
        """Go on with a paused job from its last checkpoint.

        Raises:
            Conflict: it is not paused, or its process has yet to end.
        """
        with self._unfinished(job_id, "resumed") as (connection, job, queued):
            if not job.paused:
                raise Conflict(f"Job {job_id!r} is {job.status}; only a paused one is resumed")
            work = job.job_id
            if queued is None:  # it was forgotten, as whatever ended long ago is
                work = self._queue(connection, job.id, job.tenant)
            elif not queued.is_finished:
                raise Conflict(f"Job {job_id!r} is about to pause; try again in a moment")
            else:
                self._parts.jobs.requeue(work, from_scratch=True, connection=connection)
            self.jobs.change(connection, job.id, paused=False, status="queued", job_id=work)
            self.jobs.say(connection, job.id, Said("The job was resumed"))
        self._parts.jobs.tell()
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

    def _queue(self, connection: Connection, job_id: str, tenant: str | None) -> str:
        """Queue the work of a job; return what the queue calls it."""
        options = Options(tenant=tenant or "default")
        arguments = {"job": job_id}
        return self._parts.jobs.start(
            running.JOB, arguments, options=options, connection=connection
        ).id

    @contextmanager
    def _unfinished(self, job_id: str, what: str) -> Iterator[_Held]:
        job = self.get(job_id)
        if job.is_finished:
            raise Conflict(f"Job {job_id!r} has {_ended(job.status)}; it cannot be {what}")
        with self._held(job) as held:
            if held.job.job_id != job.job_id:
                raise Conflict(f"Job {job_id!r} was resumed meanwhile; try again")
            if held.job.is_finished or _end(held.job, held.queued):
                raise Conflict(f"Job {job_id!r} has ended meanwhile; it cannot be {what}")
            yield held

    @contextmanager
    def _held(self, seen: FineTuningJob) -> Iterator[_Held]:
        """Keep a job, and the work it was seen to have, as they are within one transaction.

        Its work holds its own entry in the queue first when it writes how the job stands.
        """
        with self._parts.database.write() as connection:
            queued = self._parts.jobs.hold(connection, seen.job_id)
            yield _Held(connection, self.jobs.hold(connection, seen.id), queued)

    def _standing(self, *jobs: FineTuningJob) -> tuple[FineTuningJob, ...]:
        """Return jobs as the queue knows them, where their own work could not write its end."""
        known = self._parts.jobs.find(job.job_id for job in jobs if not job.is_finished)
        return tuple(
            _shown(self._settled(job) if _end(job, known.get(job.job_id)) else job) for job in jobs
        )

    def _settled(self, seen: FineTuningJob) -> FineTuningJob:
        """Write down how a job ended, unless that is so no more."""
        with self._held(seen) as (connection, job, queued):
            ended = _end(job, queued) if job.job_id == seen.job_id else None
            if ended is None:
                return job
            self.jobs.change(connection, job.id, **ended)
            return replace(job, **ended)


class _Held(NamedTuple):
    connection: Connection
    job: FineTuningJob
    queued: Queued | None


def _end(job: FineTuningJob, queued: Queued | None) -> dict[str, Any] | None:
    """Return how a job ended that could not write it down itself; None if it has not."""
    if job.is_finished or job.paused:
        return None
    if queued is None:
        status, why = "failed", LOST
    elif queued.state in ("failed", "cancelled"):
        status, why = queued.state, queued.error or LOST
    else:
        return None
    error = job.error or {"code": "server_error", "message": why, "param": None}
    return {
        "status": status,
        "error": error if status == "failed" else None,
        "finished_at": datetime.now(UTC),
    }


def _shown(job: FineTuningJob) -> FineTuningJob:
    is_paused = job.paused and not job.is_finished
    return replace(job, status="paused", estimated_finish=None) if is_paused else job


def _ended(status: Status) -> str:
    return "been cancelled" if status == "cancelled" else status

"""What is kept of fine-tuning jobs: what was asked, how they stand, events, checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Table,
    delete,
    func,
    insert,
    select,
    true,
    update,
)

from infra.contracts import Access
from infra.database.engine import Database
from infra.database.fine_tuning_tables import fine_tuning_checkpoint as checkpoint
from infra.database.fine_tuning_tables import fine_tuning_event as event
from infra.database.fine_tuning_tables import fine_tuning_job as job
from infra.errors import NotFound
from infra.security import new_id
from retrieval.paging import Page, fetch_page

Status = Literal[
    "validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled"
]
FINISHED = ("succeeded", "failed", "cancelled")
Level = Literal["info", "warn", "error"]
MAX_MESSAGE_CHARACTERS = 4_000
SHORT = 12
"""Characters of a job's id, in the names of what comes out of it."""
CHECKPOINT = ":ckpt-step-"
"""Between the name of a model and the step, in the name of a checkpoint."""
Metadata = Mapping[str, str] | Literal["null"] | None
"""Pairs that jobs must have, or that they must have none; None is all jobs."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A fine-tuning as a client asked for it; JSON's values."""

    model: str
    training_file: str
    validation_file: str | None
    method: dict[str, Any]
    """Its type, with hyperparameters as they are carried out."""
    suffix: str | None
    seed: int
    metadata: dict[str, str] | None


@dataclass(frozen=True, slots=True)
class FineTuningJob:
    """A job as it was written down last."""

    id: str
    tenant: str | None
    job_id: str
    """In the queue, which forgets it some time after its end."""
    asked: Asked
    specification: dict[str, Any]
    status: Status
    created_at: datetime
    paused: bool = False
    finished_at: datetime | None = None
    estimated_finish: datetime | None = None
    steps: int | None = None
    """Of the plan."""
    trained_tokens: int | None = None
    error: dict[str, Any] | None = None
    """With OpenAI's `code`, `message` and `param`."""
    result_files: Sequence[str] = ()
    """The client's once it has succeeded; before that they may go with what the run wrote."""
    told_bytes: int = 0
    """How much of what its process told has become events."""

    @property
    def is_finished(self) -> bool:
        return self.status in FINISHED

    @property
    def artifact(self) -> str:
        """The name of its adapter in the store, without the kind."""
        return artifact_of(self.id)

    @property
    def model_name(self) -> str:
        """What its model is asked for by, once there is one."""
        return f"ft:{self.asked.model}:{self.asked.suffix or ''}:{self.id[-SHORT:]}"

    def checkpoint_name(self, step: int) -> str:
        """What the model is asked for by that a checkpoint holds; the last one is the model."""
        is_last = self.steps is not None and step >= self.steps
        return self.model_name if is_last else f"{self.model_name}{CHECKPOINT}{step}"


@dataclass(frozen=True, slots=True)
class Event:
    id: str
    at: datetime
    level: Level
    type: Literal["message", "metrics"]
    message: str
    data: dict[str, Any] | None
    number: int
    """Rises in the order of what happened."""


@dataclass(frozen=True, slots=True)
class Said:
    """An event to add."""

    message: str
    level: Level = "info"
    data: dict[str, Any] | None = None
    """With it, the event tells metrics."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    id: str
    step: int
    metrics: dict[str, Any]
    created_at: datetime


class FineTuningJobs:
    """The jobs of one database; one caller sees those of its tenant, the operator all."""

    def __init__(self, database: Database, *, access: Access | None = None) -> None:
        self.database = database
        self._access = access

    def seen_by(self, access: Access | None) -> FineTuningJobs:
        """Return the jobs as a caller sees them."""
        return FineTuningJobs(self.database, access=access)

    def add(self, connection: Connection, made: FineTuningJob) -> None:
        """Write a new job down; its work is queued in the same transaction."""
        values = {name: getattr(made, name) for name in FineTuningJob.__slots__}
        stored = {"asked": _stored(made.asked), "result_files": list(made.result_files)}
        connection.execute(insert(job).values({**values, **stored}))

    def get(self, job_id: str) -> FineTuningJob:
        """Return a job.

        Raises:
            NotFound: the caller has none with this id.
        """
        with self.database.read() as connection:
            row = connection.execute(
                select(job).where(job.c.id == job_id, self._visible())
            ).one_or_none()
        if row is None:
            raise NotFound("fine_tuning_job", job_id)
        return _read(row)

    def hold(self, connection: Connection, job_id: str) -> FineTuningJob:
        """Return a job as `get` does, which nobody else changes before the transaction ends.

        Whoever also holds its job in the queue does that first.
        """
        query = select(job).where(job.c.id == job_id, self._visible()).with_for_update()
        row = connection.execute(query).one_or_none()
        if row is None:
            raise NotFound("fine_tuning_job", job_id)
        return _read(row)

    def list(self, *, limit: int, after: str | None, metadata: Metadata) -> Page[FineTuningJob]:
        """Return jobs, the newest first."""
        statement = select(job).where(self._visible(), *_with(metadata, self.database))
        with self.database.read() as connection:
            page = fetch_page(
                connection,
                statement,
                key=job.c.number,
                cursor=job.c.id,
                limit=limit,
                after=after,
                before=None,
                descending=True,
                within=self._visible(),
            )
        return page.map(_read)

    def unfinished(self, connection: Connection, tenant: str | None) -> int:
        """Return how many jobs of a tenant, or of the operator, are not finished."""
        query = select(func.count()).where(job.c.tenant == tenant, job.c.status.not_in(FINISHED))
        return int(connection.scalar(query) or 0)

    def change(self, connection: Connection, job_id: str, /, **values: Any) -> bool:
        """Write down how a job stands; one that is cancelled or has succeeded stays so."""
        return bool(
            connection.execute(
                update(job)
                .where(job.c.id == job_id, job.c.status.not_in(("cancelled", "succeeded")))
                .values(**values)
            ).rowcount
        )

    def say(self, connection: Connection, job_id: str, *said: Said) -> None:
        """Add events."""
        now = datetime.now(UTC)
        for each in said:
            connection.execute(
                insert(event).values(
                    id=new_id("ftevent-"),
                    fine_tuning_job_id=job_id,
                    at=now,
                    level=each.level,
                    type="message" if each.data is None else "metrics",
                    message=each.message[:MAX_MESSAGE_CHARACTERS],
                    data=each.data,
                )
            )

    def events(
        self, job_id: str, *, limit: int, after: str | None = None, newest_first: bool = True
    ) -> Page[Event]:
        """Return the events of a job; `after` is the last one of the page before."""
        page = self._page(event, job_id, limit=limit, after=after, newest_first=newest_first)
        return page.map(_event)

    def checkpoints(self, job_id: str, *, limit: int, after: str | None = None) -> Page[Checkpoint]:
        """Return the checkpoints of a job that are there, the newest first."""
        return self._page(checkpoint, job_id, limit=limit, after=after).map(_checkpoint)

    def forget_checkpoints(self, job_id: str) -> None:
        """Have a job have no checkpoints any more."""
        with self.database.write() as connection:
            connection.execute(delete(checkpoint).where(checkpoint.c.fine_tuning_job_id == job_id))

    def _page(
        self,
        table: Table,
        job_id: str,
        *,
        limit: int,
        after: str | None,
        newest_first: bool = True,
    ) -> Page[Row[Any]]:
        self.get(job_id)
        own = table.c.fine_tuning_job_id == job_id
        with self.database.read() as connection:
            return fetch_page(
                connection,
                select(table).where(own),
                key=table.c.number,
                cursor=table.c.id,
                limit=limit,
                after=after,
                before=None,
                descending=newest_first,
                within=own,
            )

    def _visible(self) -> ColumnElement[bool]:
        return true() if self._access is None else job.c.tenant == self._access.tenant


def artifact_of(job_id: str) -> str:
    """Return the name of a job's adapter in the store, without the kind."""
    return f"ft-{job_id[-SHORT:]}"


def _stored(asked: Asked) -> dict[str, Any]:
    return {name: getattr(asked, name) for name in Asked.__slots__}


def _with(metadata: Metadata, database: Database) -> list[ColumnElement[bool]]:
    if metadata is None:
        return []
    if metadata == "null":
        return [job.c.asked["metadata"].as_string().is_(None)]
    has = _has_in_sqlite if database.is_sqlite else _has
    return [has(key, value) for key, value in metadata.items()]


def _has(key: str, value: str) -> ColumnElement[bool]:
    found: ColumnElement[bool] = job.c.asked["metadata"][key].as_string() == value
    return found


def _has_in_sqlite(key: str, value: str) -> ColumnElement[bool]:
    """Whose paths can name no key that holds a quote or is written with escapes."""
    pairs = func.json_each(job.c.asked, "$.metadata").table_valued("key", "value")
    return select(pairs).where(pairs.c.key == key, pairs.c.value == value).exists()


def _read(row: Row[Any]) -> FineTuningJob:
    values = {name: getattr(row, name) for name in FineTuningJob.__slots__}
    return FineTuningJob(**{**values, "asked": Asked(**row.asked)})


def _event(row: Row[Any]) -> Event:
    return Event(row.id, row.at, row.level, row.type, row.message, row.data, row.number)


def _checkpoint(row: Row[Any]) -> Checkpoint:
    return Checkpoint(row.id, row.step, row.metrics, row.created_at)

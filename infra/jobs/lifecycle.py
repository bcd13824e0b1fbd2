"""How an attempt ends; every change is fenced, so that only the attempt in force makes it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, insert, update

from infra.jobs.definitions import Json, Resources, Retries
from infra.jobs.records import Level
from infra.jobs.tables import job, job_attempt, job_log

MAX_MESSAGE_CHARACTERS = 10_000


@dataclass(frozen=True, slots=True)
class Claim:
    """One job, taken by one worker for one attempt."""

    job_id: str
    name: str
    tenant: str
    arguments: dict[str, Json]
    resources: Resources
    fence: int
    """Larger than that of every earlier attempt of any job."""
    workflow_id: str
    """Under which DBOS keeps the steps."""
    has_steps: bool
    """Whether an earlier attempt may have left steps there."""
    failures: int
    crashes: int
    cancel_requested: bool = False


def is_current(connection: Connection, claim: Claim) -> bool:
    """Whether the attempt is still in force, and stays so until the transaction ends."""
    kept = connection.execute(
        update(job)
        .where(job.c.id == claim.job_id, job.c.fence == claim.fence)
        .values(fence=job.c.fence)
    )
    return bool(kept.rowcount)


def succeed(connection: Connection, claim: Claim, *, result: Json, now: datetime) -> bool:
    """Record the result; `False` if another attempt is in force."""
    return _end(
        connection,
        claim,
        outcome="succeeded",
        now=now,
        values={
            "state": "succeeded",
            "result": result,
            "error": None,
            "fraction": 1.0,
            "finished_at": now,
        },
    )


def fail(
    connection: Connection,
    claim: Claim,
    *,
    error: Exception | SystemExit,
    retries: Retries,
    now: datetime,
) -> bool:
    """Record an error; the job is tried again later, or given up."""
    failures = claim.failures + 1
    text = f"{type(error).__name__}: {error}"[:MAX_MESSAGE_CHARACTERS]
    again = failures < retries.attempts and not isinstance(error, retries.permanent)
    values: dict[str, Any] = {"failures": failures, "error": text}
    if again:
        delay = timedelta(seconds=retries.delay_seconds(failures))
        values |= {"state": "queued", "available_at": now + delay}
        message = f"attempt failed, next in {delay.total_seconds():g} s: {text}"
    else:
        values |= {"state": "failed", "finished_at": now}
        message = f"given up: {text}"
    ended = _end(connection, claim, outcome="failed", now=now, values=values)
    if ended:
        note(connection, claim.job_id, message=message, now=now, level="error", fence=claim.fence)
    return ended


def cancel(connection: Connection, claim: Claim, *, now: datetime) -> bool:
    """Record that the job ended because somebody asked for it."""
    values = {"state": "cancelled", "finished_at": now}
    return _end(connection, claim, outcome="cancelled", now=now, values=values)


def release(connection: Connection, claim: Claim, *, now: datetime) -> bool:
    """Put the job back: its worker stops in order."""
    values = {"state": "queued", "available_at": now}
    return _end(connection, claim, outcome="released", now=now, values=values)


def lose(connection: Connection, claim: Claim, *, retries: Retries, now: datetime) -> bool:
    """Put the job back, or give it up: its worker died."""
    crashes = claim.crashes + 1
    values: dict[str, Any] = {"state": "queued", "available_at": now, "crashes": crashes}
    message = "its worker died; the job goes on elsewhere"
    if crashes >= retries.crashes:
        message = f"given up: its worker died {crashes} times while it ran"
        values |= {"state": "failed", "finished_at": now, "error": message}
    ended = _end(connection, claim, outcome="lost", now=now, values=values)
    if ended:
        note(connection, claim.job_id, message=message, now=now, level="error", fence=claim.fence)
    return ended


def note(
    connection: Connection,
    job_id: str,
    *,
    message: str,
    now: datetime,
    level: Level = "info",
    fence: int | None = None,
) -> None:
    """Append a line to the job's log."""
    connection.execute(
        insert(job_log).values(
            job_id=job_id,
            attempt=fence,
            at=now,
            level=level,
            message=message[:MAX_MESSAGE_CHARACTERS],
        )
    )


def _end(
    connection: Connection, claim: Claim, *, outcome: str, now: datetime, values: dict[str, Any]
) -> bool:
    ended = connection.execute(
        update(job)
        .where(job.c.id == claim.job_id, job.c.fence == claim.fence)
        .values(fence=None, worker_id=None, **values)
    )
    if not ended.rowcount:
        return False
    if values["state"] == "queued":
        connection.execute(
            update(job)
            .where(job.c.id == claim.job_id, job.c.cancel_requested, ~job.c.detached)
            .values(state="cancelled", finished_at=now)
        )
        connection.execute(
            update(job)
            .where(job.c.id == claim.job_id, job.c.cancel_requested, job.c.detached)
            .values(available_at=now)
        )
    connection.execute(
        update(job_attempt)
        .where(job_attempt.c.id == claim.fence)
        .values(finished_at=now, outcome=outcome, error=values.get("error"))
    )
    return True

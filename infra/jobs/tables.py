"""The tables of the job queue: jobs, their attempts and log lines, workers, schedules."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Identity,
    Index,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
)

from infra.database.schema import Moment, Number, metadata

job = Table(
    "job",
    metadata,
    Column("number", Number, Identity(), primary_key=True),  # order of arrival
    Column("id", String(64), nullable=False, unique=True),
    Column("name", String(128), nullable=False),
    Column("tenant", String(128), nullable=False),
    Column("key", String(255), nullable=True),
    Column("priority", Integer, nullable=False),
    Column("cpu", Float, nullable=False),
    Column("gpu", Integer, nullable=False),
    Column("memory_bytes", BigInteger, nullable=False),
    Column("arguments", JSON, nullable=False),
    Column("state", String(16), nullable=False),  # queued|running|succeeded|failed|cancelled
    Column("cancel_requested", Boolean, nullable=False, default=False),
    Column("available_at", Moment(), nullable=False),
    # The attempt that may write for this job, and the worker it runs on; null unless running.
    Column("fence", Number, nullable=True),
    Column("worker_id", String(64), nullable=True, index=True),
    Column("failures", Integer, nullable=False, default=0),
    Column("crashes", Integer, nullable=False, default=0),
    # How often it was started over, forgetting its steps.
    Column("run", Integer, nullable=False, default=0),
    Column("fraction", Float, nullable=True),
    Column("message", Text, nullable=False, default=""),
    Column("result", JSON(none_as_null=True), nullable=True),
    Column("error", Text, nullable=True),
    # Whether DBOS holds records of its steps.
    Column("has_steps", Boolean, nullable=False, default=False),
    # Whether it has run and may have left programs that only it can end.
    Column("detached", Boolean, nullable=False, default=False, server_default=false()),
    # Of the jobs that share one, only one runs at a time.
    Column("lane", String(255), nullable=True, index=True),
    Column("created_at", Moment(), nullable=False),
    Column("started_at", Moment(), nullable=True),
    Column("finished_at", Moment(), nullable=True),
    UniqueConstraint("name", "tenant", "key"),
    Index(None, "state", "priority"),
    sqlite_autoincrement=True,
)

# Its id is the fencing token: never used twice, and larger for every later attempt of any job.
job_attempt = Table(
    "job_attempt",
    metadata,
    Column("id", Number, Identity(), primary_key=True),
    Column(
        "job_id", String(64), ForeignKey("job.id", ondelete="CASCADE"), nullable=False, index=True
    ),
    Column("worker_id", String(64), nullable=False),
    Column("started_at", Moment(), nullable=False),
    Column("finished_at", Moment(), nullable=True),
    # succeeded | failed | cancelled | released (its worker stopped) | lost (its worker died)
    Column("outcome", String(16), nullable=True),
    Column("error", Text, nullable=True),
    sqlite_autoincrement=True,
)

job_log = Table(
    "job_log",
    metadata,
    Column("id", Number, Identity(), primary_key=True),
    Column("job_id", String(64), ForeignKey("job.id", ondelete="CASCADE"), nullable=False),
    Column("attempt", Number, nullable=True),
    Column("at", Moment(), nullable=False),
    Column("level", String(16), nullable=False),
    Column("message", Text, nullable=False),
    Index(None, "job_id", "id"),
    sqlite_autoincrement=True,
)

job_worker = Table(
    "job_worker",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("process", String(255), nullable=False),  # as infra.jobs.processes writes it
    Column("names", JSON, nullable=False),  # of the jobs it has code for
    Column("cpu", Float, nullable=False),
    Column("gpu", Integer, nullable=False),
    Column("memory_bytes", BigInteger, nullable=False),
    Column("slots", Integer, nullable=False),
    # Raised with every heartbeat: others watch it move, so that no two clocks need agree.
    Column("beat", Integer, nullable=False),
    Column("started_at", Moment(), nullable=False),
    Column("seen_at", Moment(), nullable=False),
)

job_schedule = Table(
    "job_schedule",
    metadata,
    Column("name", String(128), primary_key=True),
    Column("job", String(128), nullable=False),
    Column("arguments", JSON, nullable=False),
    Column("cron", String(255), nullable=False),
    Column("time_zone", String(64), nullable=False),
    Column("catch_up", String(8), nullable=False),  # skip | last | all
    Column("tenant", String(128), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("paused", Boolean, nullable=False, default=False),
    # Every tick up to here was dealt with; it only ever moves forward.
    Column("last_tick", Moment(), nullable=False),
    Column("created_at", Moment(), nullable=False),
)

"""The tables of fine-tuning over HTTP: jobs as clients know them, their events and checkpoints."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Identity,
    Index,
    Integer,
    String,
    Table,
    Text,
)

from infra.database.schema import Moment, Number, metadata

JOB_ID = "fine_tuning_job.id"

fine_tuning_job = Table(
    "fine_tuning_job",
    metadata,
    Column("number", Number, Identity(), primary_key=True),  # order of arrival
    Column("id", String(64), nullable=False, unique=True),
    Column("tenant", String(255), nullable=True, index=True),  # null: the operator
    Column("job_id", String(64), nullable=False, unique=True),  # in the queue, as long as it is
    Column("asked", JSON, nullable=False),  # as the client asked for it
    Column("specification", JSON, nullable=False),  # what is trained by
    # validating_files | queued | running | succeeded | failed | cancelled, as far as its own work
    # has written it down
    Column("status", String(32), nullable=False),
    Column("paused", Boolean, nullable=False, default=False),
    Column("created_at", Moment(), nullable=False),
    Column("finished_at", Moment(), nullable=True),
    Column("estimated_finish", Moment(), nullable=True),
    Column("steps", Integer, nullable=True),  # of the plan
    Column("trained_tokens", BigInteger, nullable=True),
    Column("error", JSON(none_as_null=True), nullable=True),
    Column("result_files", JSON, nullable=False),
    # How much of what the training process told has become events.
    Column("told_bytes", BigInteger, nullable=False, default=0),
    sqlite_autoincrement=True,
)

fine_tuning_event = Table(
    "fine_tuning_event",
    metadata,
    Column("number", Number, Identity(), primary_key=True),
    Column("id", String(64), nullable=False, unique=True),
    Column(
        "fine_tuning_job_id",
        String(64),
        ForeignKey(JOB_ID, ondelete="CASCADE"),
        nullable=False,
    ),
    Column("at", Moment(), nullable=False),
    Column("level", String(16), nullable=False),  # info | warn | error
    Column("type", String(16), nullable=False),  # message | metrics
    Column("message", Text, nullable=False),
    Column("data", JSON(none_as_null=True), nullable=True),
    Index(None, "fine_tuning_job_id", "number"),
    sqlite_autoincrement=True,
)

fine_tuning_checkpoint = Table(
    "fine_tuning_checkpoint",
    metadata,
    Column("number", Number, Identity(), primary_key=True),
    Column("id", String(64), nullable=False, unique=True),
    Column(
        "fine_tuning_job_id",
        String(64),
        ForeignKey(JOB_ID, ondelete="CASCADE"),
        nullable=False,
        index=True,
    ),
    Column("step", Integer, nullable=False),
    Column("metrics", JSON, nullable=False),
    Column("created_at", Moment(), nullable=False),
    sqlite_autoincrement=True,
)

# What came out and can be asked by name, until it is deleted.
tuned_model = Table(
    "tuned_model",
    metadata,
    Column("number", Number, Identity(), primary_key=True),
    Column("name", String(255), nullable=False, unique=True),
    Column("base", String(128), nullable=False),  # as clients know it
    Column("tenant", String(255), nullable=True),
    Column("adapter", String(255), nullable=False),  # a reference, pinned
    Column(
        "fine_tuning_job_id",
        String(64),
        ForeignKey(JOB_ID, ondelete="CASCADE"),
        nullable=False,
        index=True,
    ),
    Column("created_at", Moment(), nullable=False),
    sqlite_autoincrement=True,
)

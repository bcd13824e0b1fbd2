"""The tables of pipelines: runs, and how each of their steps came out."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    ForeignKey,
    Identity,
    Index,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from infra.database.schema import Moment, Number, metadata

pipeline_run = Table(
    "pipeline_run",
    metadata,
    Column("number", Number, Identity(), primary_key=True),  # order of arrival
    Column("id", String(64), nullable=False, unique=True),
    Column("pipeline", String(64), nullable=False),
    # What a scheduler calls this run; asking again with the same key finds it.
    Column("key", String(255), nullable=True),
    Column("mode", String(16), nullable=False),  # foreground | jobs | external
    Column("state", String(16), nullable=False),  # running | succeeded | failed | cancelled
    # The pipeline as it was read, parameters filled in.
    Column("definition", JSON, nullable=False),
    # What was pinned when it began: inputs from the store, code, versions.
    Column("pins", JSON, nullable=False),
    # The artifact that holds the pipeline's own files; null if it has none.
    Column("snapshot", String(80), nullable=True),
    Column("force", Boolean, nullable=False, default=False),
    # Who runs it in the foreground, as infra.jobs.processes writes it.
    Column("process", String(255), nullable=True),
    Column("created_at", Moment(), nullable=False),
    Column("finished_at", Moment(), nullable=True),
    UniqueConstraint("pipeline", "key"),
    sqlite_autoincrement=True,
)

pipeline_step = Table(
    "pipeline_step",
    metadata,
    Column("id", Number, Identity(), primary_key=True),
    Column(
        "run_id",
        String(64),
        ForeignKey("pipeline_run.id", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("pipeline", String(64), nullable=False),
    Column("name", String(64), nullable=False),
    # waiting | queued | running | succeeded | cached | failed | blocked | cancelled | skipped
    Column("state", String(16), nullable=False),
    # The hash of `parts`, which is all that the outcome depends on.
    Column("key", String(80), nullable=True, index=True),
    Column("parts", JSON(none_as_null=True), nullable=True),
    # The references behind the inputs, for people to read.
    Column("inputs", JSON(none_as_null=True), nullable=True),
    # By local name: reference, digest of the artifact, digest of its files alone.
    Column("outputs", JSON(none_as_null=True), nullable=True),
    Column("result", JSON(none_as_null=True), nullable=True),
    Column("reason", Text, nullable=False, default=""),
    Column("error", Text, nullable=True),
    # Raised whenever somebody takes the step up: only the last one may write.
    Column("fence", Integer, nullable=False, default=0),
    Column("failures", Integer, nullable=False, default=0),
    # The folder its program runs in, below that of the run; null until it is laid out.
    Column("work", String(64), nullable=True),
    Column("job_id", String(64), nullable=True),
    Column("started_at", Moment(), nullable=True),
    Column("finished_at", Moment(), nullable=True),
    UniqueConstraint("run_id", "name"),
    Index(None, "pipeline", "name", "state"),
    sqlite_autoincrement=True,
)

"""The tables of tracking: runs, tags, artifacts, metric series and their blocks, mirrors."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
)

from infra.database.schema import Moment, Number, metadata


def _of_run(*, primary_key: bool = False, index: bool = False) -> Column[str]:
    return Column(
        "run_id",
        String(64),
        ForeignKey("run.id", ondelete="CASCADE"),
        nullable=False,
        primary_key=primary_key,
        index=index or None,
    )


run = Table(
    "run",
    metadata,
    Column("number", Number, Identity(), primary_key=True),  # order of arrival
    Column("id", String(64), nullable=False, unique=True),
    Column("kind", String(64), nullable=False),
    Column("name", String(255), nullable=False, index=True),
    # running | finished | failed | killed; that a running one was lost is seen from its heartbeat
    Column("state", String(16), nullable=False, index=True),
    Column("exit_reason", Text, nullable=True),
    Column(
        "parent_id",
        String(64),
        ForeignKey("run.id", ondelete="SET NULL"),
        nullable=True,
        index=True,
    ),
    # JSON as Python writes it: with NaN, and with every character escaped that a text cannot hold.
    Column("parameters", Text, nullable=False),
    Column("command", Text, nullable=False),
    Column("environment", JSON, nullable=False),
    Column("packages", String(80), nullable=True),
    Column("git_revision", String(64), nullable=True),
    Column("git_dirty", Boolean, nullable=True),
    Column("process", String(255), nullable=False),  # as infra.jobs.processes writes it
    Column("seen_at", Moment(), nullable=False),  # by the database's clock
    # Raised by every write of points, which makes the writers of one run follow each other.
    Column("flush", Number, nullable=False, default=0),
    Column("dropped", Number, nullable=False, default=0),
    Column("started_at", Moment(), nullable=False),
    Column("finished_at", Moment(), nullable=True),
    Index(None, "kind", "number"),
    sqlite_autoincrement=True,
)

run_tag = Table(
    "run_tag",
    metadata,
    _of_run(primary_key=True),
    Column("key", String(255), primary_key=True, index=True),
    Column("value", Text, nullable=False),
)

run_artifact = Table(
    "run_artifact",
    metadata,
    Column("id", Number, Identity(), primary_key=True),
    _of_run(index=True),
    Column("direction", String(8), nullable=False),  # used | made
    Column("role", String(64), nullable=False),
    Column("reference", String(512), nullable=False),
    Column("digest", String(80), nullable=False, index=True),
    Column("at", Moment(), nullable=False),
    sqlite_autoincrement=True,
)

# A number that is null stands for NaN, which SQLite cannot hold.
run_series = Table(
    "run_series",
    metadata,
    Column("id", Number, Identity(), primary_key=True),
    _of_run(),
    Column("name", String(255), nullable=False),
    Column("length", Number, nullable=False),
    Column("last_step", Number, nullable=False),
    Column("last_at", Float, nullable=False),
    Column("last", Float, nullable=True),
    # The smallest and the largest, NaN aside; null if there was nothing else.
    Column("low_step", Number, nullable=True),
    Column("low", Float, nullable=True),
    Column("high_step", Number, nullable=True),
    Column("high", Float, nullable=True),
    Index(None, "run_id", "name", unique=True),
    sqlite_autoincrement=True,
)

# Points are kept in blocks, as infra.tracking.points packs them: a row per point takes seven times
# as much processor time to write, and twelve times as much to read.
run_block = Table(
    "run_block",
    metadata,
    Column("id", Number, Identity(), primary_key=True),
    Column("series_id", Number, ForeignKey("run_series.id", ondelete="CASCADE"), nullable=False),
    Column("length", Integer, nullable=False),
    Column("flush", Number, nullable=False),  # of the run, when this block was last written
    Column("points", LargeBinary, nullable=False),
    Index(None, "series_id", "id"),
    sqlite_autoincrement=True,
)

# What was installed, stored once however many runs had it.
package_set = Table(
    "package_set",
    metadata,
    Column("digest", String(80), primary_key=True),
    Column("packages", JSON, nullable=False),
)

run_mirror = Table(
    "run_mirror",
    metadata,
    _of_run(primary_key=True),
    Column("mirror", String(255), primary_key=True),
    Column("state", String(16), nullable=False, index=True),  # pending | done
    Column("remote_id", String(1024), nullable=True),
    # The flush up to which points were handed over, and of unfinished blocks how many.
    Column("flush", Number, nullable=False),
    Column("partial", JSON, nullable=False),
    Column("error", Text, nullable=True),
    # Whoever feeds the mirror holds the row until then, by the database's clock.
    Column("holder", String(64), nullable=True),
    Column("held_until", Moment(), nullable=True),
)

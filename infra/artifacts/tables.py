"""The tables of the artifact store: versions, aliases and their history, lineage, leases."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Identity,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    UniqueConstraint,
)

from infra.database.schema import Number, metadata

artifact = Table(
    "artifact",
    metadata,
    Column("digest", String(80), primary_key=True),
    Column("kind", String(64), nullable=False),
    Column("entries", Integer, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("job", String(255), nullable=True),
    Column("created_at", DateTime(timezone=True), nullable=False),
    # Set when its bytes went to the trash; the row stays for lineage.
    Column("collected_at", DateTime(timezone=True), nullable=True),
)

version = Table(
    "version",
    metadata,
    Column("id", Number, Identity(), primary_key=True),
    Column("kind", String(64), nullable=False),
    Column("name", String(128), nullable=False),
    Column("n", Integer, nullable=False),
    Column("digest", String(80), nullable=False, index=True),
    Column("job", String(255), nullable=True),
    Column("created_at", DateTime(timezone=True), nullable=False),
    # From then on it keeps nothing alive; the row stays so that its number is not used twice.
    Column("expires_at", DateTime(timezone=True), nullable=True),
    UniqueConstraint("kind", "name", "n"),
)

alias = Table(
    "alias",
    metadata,
    Column("kind", String(64), primary_key=True),
    Column("name", String(128), primary_key=True),
    Column("alias", String(64), primary_key=True),
    # Null after it was removed; the token outlives that.
    Column("digest", String(80), nullable=True, index=True),
    Column("token", BigInteger, nullable=False, default=0),
    Column("moved_at", DateTime(timezone=True), nullable=False),
)

alias_log = Table(
    "alias_log",
    metadata,
    Column("id", Number, Identity(), primary_key=True),
    Column("kind", String(64), nullable=False),
    Column("name", String(128), nullable=False),
    Column("alias", String(64), nullable=False),
    Column("action", String(16), nullable=False),  # move | rollback | remove
    Column("before", String(80), nullable=True),
    Column("after", String(80), nullable=True),
    Column("token", BigInteger, nullable=False),
    Column("actor", String(255), nullable=True),
    Column("at", DateTime(timezone=True), nullable=False),
    Index(None, "kind", "name", "alias"),
)

edge = Table(
    "edge",
    metadata,
    Column("child", String(80), primary_key=True),
    Column("role", String(64), primary_key=True),
    Column("parent", String(80), primary_key=True, index=True),
)

stat_cache = Table(
    "stat_cache",
    metadata,
    Column("source", String(64), primary_key=True),  # hash of host and folder
    Column("digest", String(80), nullable=False),
    Column("files", LargeBinary, nullable=False),
    Column("used_at", DateTime(timezone=True), nullable=False),
)

lease = Table(
    "lease",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("digest", String(80), nullable=True),  # of what is read; null for a writer
    Column("started_at", DateTime(timezone=True), nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False, index=True),
)

gc_run = Table(
    "gc_run",
    metadata,
    Column("id", Number, Identity(), primary_key=True),
    Column("started_at", DateTime(timezone=True), nullable=False),
    Column("finished_at", DateTime(timezone=True), nullable=True),
    Column("dry_run", Boolean, nullable=False),
    # Raised, and committed, before anything is moved: a writer that sees it unchanged lost nothing.
    Column("condemned", BigInteger, nullable=False, default=0),
    Column("trashed", BigInteger, nullable=False, default=0),
    Column("purged", BigInteger, nullable=False, default=0),
    Column("bytes", BigInteger, nullable=False, default=0),
)

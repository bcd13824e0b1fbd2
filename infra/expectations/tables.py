"""The table of check results: the last one of each suite for each dataset version."""

from __future__ import annotations

from sqlalchemy import JSON, Boolean, Column, String, Table

from infra.database.schema import Moment, metadata

# By digest, so that a result holds for the same content under every name, and without a foreign
# key: what was checked before it came to this store counts too.
dataset_check = Table(
    "dataset_check",
    metadata,
    Column("digest", String(80), primary_key=True),
    Column("suite", String(128), primary_key=True),
    Column("suite_digest", String(80), nullable=False),
    Column("passed", Boolean, nullable=False),
    Column("report", JSON, nullable=False),
    Column("checked_at", Moment(), nullable=False),
)

"""The tables of stored responses: each with the messages that later turns go on from."""

from __future__ import annotations

from sqlalchemy import JSON, Column, ForeignKey, Identity, Index, String, Table

from infra.database.schema import Moment, Number, metadata

response = Table(
    "response",
    metadata,
    Column("number", Number, Identity(), primary_key=True),  # of each tenant the oldest go first
    Column("id", String(64), nullable=False, unique=True),
    Column("created_at", Moment(), nullable=False),
    Column("tenant", String(255), nullable=True),
    Column("key_id", String(64), nullable=True),
    Column("body", JSON, nullable=False),
    Column("items", JSON, nullable=False),
    Column("messages", JSON, nullable=False),
    Index(None, "tenant", "number"),
    sqlite_autoincrement=True,
)

# Which documents any turn of a response may quote, so that erasing one erases the response.
response_document = Table(
    "response_document",
    metadata,
    Column(
        "response_number",
        Number,
        ForeignKey("response.number", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("file_id", String(64), primary_key=True, index=True),
)

"""The tables of conversations: whose they are, and what was said in them."""

from __future__ import annotations

from sqlalchemy import JSON, Column, ForeignKey, Identity, Index, Integer, String, Table

from infra.database.schema import Moment, Number, metadata

conversation = Table(
    "conversation",
    metadata,
    Column("number", Number, Identity(), primary_key=True),
    Column("id", String(64), nullable=False, unique=True),
    Column("tenant", String(255), nullable=True),
    Column("attributes", JSON, nullable=False),
    Column("created_at", Moment(), nullable=False),
    Column("updated_at", Moment(), nullable=False, index=True),
    Index(None, "tenant", "updated_at"),  # of each tenant those unused for longest go first
    sqlite_autoincrement=True,
)

conversation_item = Table(
    "conversation_item",
    metadata,
    Column("number", Number, Identity(), primary_key=True),
    Column("id", String(64), nullable=False, unique=True),
    Column(
        "conversation_number",
        Number,
        ForeignKey("conversation.number", ondelete="CASCADE"),
        nullable=False,
        index=True,
    ),
    Column("role", String(16), nullable=False),  # system | developer | user | assistant
    Column("content", JSON, nullable=False),  # OpenAI's parts: a list of objects
    Column("bytes", Integer, nullable=False),
    Column("created_at", Moment(), nullable=False),
    sqlite_autoincrement=True,
)

# Which documents a message quotes, so that erasing one erases the message.
conversation_item_document = Table(
    "conversation_item_document",
    metadata,
    Column(
        "item_id",
        String(64),
        ForeignKey("conversation_item.id", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("file_id", String(64), primary_key=True, index=True),
)

"""The tables of interactions: a row for each, and which documents each may quote."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Column, Float, ForeignKey, Identity, Integer, String, Table

from infra.database.schema import Moment, Number, metadata

interaction = Table(
    "interaction",
    metadata,
    Column("number", Number, Identity(), primary_key=True),  # order of writing, for paging
    Column("id", String(64), nullable=False, unique=True),
    Column("at", Moment(), nullable=False, index=True),
    Column("kind", String(16), nullable=False),  # answer | completion | prediction
    Column("model", String(255), nullable=False),
    # answered | abstained | failed | cancelled
    Column("outcome", String(16), nullable=False),
    Column("status", Integer, nullable=False),
    Column("request_id", String(128), nullable=True, index=True),
    Column("error", String(64), nullable=True),
    Column("tenant", String(255), nullable=True, index=True),
    Column("key_id", String(64), nullable=True),
    Column("collection", String(255), nullable=True),
    Column("upstream", String(255), nullable=False),
    Column("tag", String(64), nullable=False),
    Column("source", String(16), nullable=False),
    Column("served", String(255), nullable=True),
    Column("terms", String(16), nullable=True),  # pinned | hurried
    Column("draw", Float, nullable=True),
    Column("prompt_version", String(80), nullable=True),
    Column("prompt_tokens", Integer, nullable=False),
    Column("completion_tokens", Integer, nullable=False),
    Column("cached_tokens", Integer, nullable=False),
    Column("cost_nano", BigInteger, nullable=False),  # of the currency, in billionths
    Column("first_byte_seconds", Float, nullable=True),
    Column("seconds", Float, nullable=False),
    Column("support", Float, nullable=True),  # of the citation that carries its sentence least
    Column("groundedness", Float, nullable=True),  # of the sentence that passages carry least
    Column("verdict", String(16), nullable=True),  # grounded | unsupported | uncertain | unscored
    Column("review", String(16), nullable=True, index=True),  # unsupported | sampled
    # Questions, answers and citations; only where the settings ask for them.
    Column("content", JSON(none_as_null=True), nullable=True),
    sqlite_autoincrement=True,
)

# Which documents an interaction's content may quote, so that erasing one erases its quotes.
interaction_document = Table(
    "interaction_document",
    metadata,
    Column(
        "interaction_number",
        Number,
        ForeignKey("interaction.number", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("file_id", String(64), primary_key=True, index=True),
)

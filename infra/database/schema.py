"""The tables: collections, files, documents, their text, builds, chunks and the change log."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.types import TypeDecorator

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class Moment(TypeDecorator[datetime]):
    """A point in time, always with its zone; SQLite would hand it back without."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:
        del dialect
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value


Number = BigInteger().with_variant(Integer, "sqlite")


def _number_key() -> Column[int]:
    # Never used twice (AUTOINCREMENT): a view that saw 7 deleted must not meet another 7.
    return Column("id", Number, Identity(), primary_key=True)


collection = Table(
    "collection",
    metadata,
    _number_key(),
    Column("public_id", String(64), nullable=False, unique=True),
    Column("name", String(255), nullable=False, unique=True),
    Column("live_build_id", Number, nullable=True),
    Column("attributes", JSON, nullable=False, default=dict),
    Column("created_at", Moment(), nullable=False),
    Column("last_active_at", Moment(), nullable=False),
    sqlite_autoincrement=True,
)

build = Table(
    "build",
    metadata,
    _number_key(),
    Column(
        "collection_id",
        Number,
        ForeignKey("collection.id", ondelete="CASCADE"),
        nullable=False,
        index=True,
    ),
    # building | live | standby (live before, kept in step) | reclaiming | reclaimed
    Column("state", String(16), nullable=False),
    Column("recipe_digest", String(80), nullable=False),
    Column("recipe", JSON, nullable=False),
    Column("dimension", Integer, nullable=False),
    Column("created_at", Moment(), nullable=False),
    sqlite_autoincrement=True,
)

file = Table(
    "file",
    metadata,
    Column("number", Number, Identity(), primary_key=True),  # order of arrival, for paging
    Column("id", String(64), nullable=False, unique=True),
    Column("filename", String(1024), nullable=False),
    Column("purpose", String(32), nullable=False),
    Column("digest", String(80), nullable=False, index=True),
    Column("bytes", BigInteger, nullable=False),
    Column("created_at", Moment(), nullable=False),
    sqlite_autoincrement=True,
)

document = Table(
    "document",
    metadata,
    _number_key(),
    Column(
        "collection_id", Number, ForeignKey("collection.id", ondelete="CASCADE"), nullable=False
    ),
    Column("file_id", String(64), ForeignKey("file.id"), nullable=False, index=True),
    Column("source", String(4096), nullable=False),
    # in_progress (accepted, not yet searchable) | completed | failed | cancelled (unread)
    Column("status", String(16), nullable=False),
    Column("error_code", String(32), nullable=True),
    Column("error_message", Text, nullable=True),
    Column("digest", String(80), nullable=False),  # of the bytes that version was read from
    Column("version", Integer, nullable=False),
    Column("title", Text, nullable=False, default=""),
    Column("media_type", String(128), nullable=False, default=""),
    Column("metadata", JSON, nullable=False, default=dict),
    Column("characters", Integer, nullable=False, default=0),
    Column("created_at", Moment(), nullable=False),
    Column("updated_at", Moment(), nullable=False),
    UniqueConstraint("collection_id", "source"),
    Index(None, "collection_id", "status"),
    sqlite_autoincrement=True,
)

# A document's text in pieces of equal length, so that a span is read without reading the book.
document_text = Table(
    "document_text",
    metadata,
    Column("document_id", Number, ForeignKey("document.id", ondelete="CASCADE"), primary_key=True),
    Column("piece", Integer, primary_key=True),
    Column("text", Text, nullable=False),
)

chunk = Table(
    "chunk",
    metadata,
    _number_key(),
    Column("build_id", Number, ForeignKey("build.id", ondelete="CASCADE"), nullable=False),
    Column(
        "document_id",
        Number,
        ForeignKey("document.id", ondelete="CASCADE"),
        nullable=False,
        index=True,
    ),
    Column("ordinal", Integer, nullable=False),
    Column("start_char", Integer, nullable=False),
    Column("end_char", Integer, nullable=False),
    Column("tokens", Integer, nullable=False),
    Column("page", Integer, nullable=True),
    Column("heading", Text, nullable=False, default=""),
    Column("text", Text, nullable=False),
    Column("vector", LargeBinary, nullable=False),  # float16, little endian
    UniqueConstraint("build_id", "document_id", "ordinal"),
    sqlite_autoincrement=True,
)

# Which version of a document a build holds; a document without a row is yet to be built.
build_document = Table(
    "build_document",
    metadata,
    Column("build_id", Number, ForeignKey("build.id", ondelete="CASCADE"), primary_key=True),
    Column(
        "document_id",
        Number,
        ForeignKey("document.id", ondelete="CASCADE"),
        primary_key=True,
        index=True,
    ),
    Column("version", Integer, nullable=False),
)

build_event = Table(
    "build_event",
    metadata,
    _number_key(),
    Column(
        "collection_id",
        Number,
        ForeignKey("collection.id", ondelete="CASCADE"),
        nullable=False,
        index=True,
    ),
    Column("build_id", Number, nullable=False),
    # started | refused | swapped | rolled_back | retired
    Column("kind", String(16), nullable=False),
    Column("detail", JSON, nullable=False, default=dict),
    Column("at", Moment(), nullable=False),
    sqlite_autoincrement=True,
)

change = Table(
    "change",
    metadata,
    Column("sequence", Number, Identity(), primary_key=True),
    Column("build_id", Number, ForeignKey("build.id", ondelete="CASCADE"), nullable=False),
    Column("operation", String(8), nullable=False),  # upsert | delete
    Column("chunk_id", Number, nullable=False),
    Index(None, "build_id", "sequence"),
    sqlite_autoincrement=True,
)

# Files attached together, so that a client can ask how far they are.
batch = Table(
    "batch",
    metadata,
    Column("id", String(64), primary_key=True),
    Column(
        "collection_id",
        Number,
        ForeignKey("collection.id", ondelete="CASCADE"),
        nullable=False,
        index=True,
    ),
    Column("created_at", Moment(), nullable=False),
    Column("cancelled_at", Moment(), nullable=True),
)

# By public id and without a foreign key: a file that is removed is no longer counted.
batch_member = Table(
    "batch_member",
    metadata,
    Column("batch_id", String(64), ForeignKey("batch.id", ondelete="CASCADE"), primary_key=True),
    Column("file_id", String(64), primary_key=True),
)

# Bytes that no file refers to any more and that are about to be removed: written with the deletion,
# emptied after it, so that a crash in between forgets nothing.
doomed_blob = Table("doomed_blob", metadata, Column("digest", String(80), primary_key=True))

# Where the documents of a collection are kept in step with; no secret stands here.
source = Table(
    "source",
    metadata,
    Column("number", Number, Identity(), primary_key=True),
    Column("name", String(128), nullable=False, unique=True),
    Column(
        "collection_id",
        Number,
        ForeignKey("collection.id", ondelete="CASCADE"),
        nullable=False,
        index=True,
    ),
    Column("kind", String(64), nullable=False),  # a file of retrieval/sources/
    Column("place", Text, nullable=False),
    Column("identity", Text, nullable=False),  # what its items are remembered under
    Column("options", JSON, nullable=False),
    Column("metadata", JSON, nullable=False),
    Column("created_at", Moment(), nullable=False),
    sqlite_autoincrement=True,
)

# What a sync brought in. A row is written before its document, so that a crash leaves no document
# that nobody answers for; the token is the version that was committed, null until then.
source_item = Table(
    "source_item",
    metadata,
    Column(
        "collection_id", Number, ForeignKey("collection.id", ondelete="CASCADE"), primary_key=True
    ),
    Column("scope", String(80), primary_key=True),  # the digest of the place it came from
    Column("uri", String(2048), primary_key=True),
    Column("token", Text, nullable=True),
    Column("digest", String(80), nullable=True),  # of the document's bytes at that version
)

api_key = Table(
    "api_key",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("name", String(255), nullable=False, unique=True),
    Column("fingerprint", String(64), nullable=False, unique=True),
    Column("created_at", Moment(), nullable=False),
    Column("expires_at", Moment(), nullable=True),
    Column("revoked_at", Moment(), nullable=True),
    Column("last_used_at", Moment(), nullable=True),
    Column("tenant", String(255), nullable=True),
    # Lists of texts. NULL is: no groups, every scope, every model, every collection.
    Column("groups", JSON(none_as_null=True), nullable=True),
    Column("scopes", JSON(none_as_null=True), nullable=True),
    Column("models", JSON(none_as_null=True), nullable=True),
    Column("collections", JSON(none_as_null=True), nullable=True),
    # Of its last change, from `revision`: processes read what is newer than what they know.
    Column("revision", BigInteger, nullable=False, server_default="0", index=True),
    Column("requests_per_minute", BigInteger, nullable=True),
    Column("tokens_per_minute", BigInteger, nullable=True),
    Column("max_concurrent", BigInteger, nullable=True),
    # What the key was before it was rotated, which opens until then too.
    Column("previous_fingerprint", String(64), nullable=True),
    Column("previous_until", Moment(), nullable=True),
)

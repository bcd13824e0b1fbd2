"""The tables of monitoring: what people said of interactions, and what the watch found."""

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

feedback = Table(
    "feedback",
    metadata,
    Column("number", Number, Identity(), primary_key=True),  # order of arrival
    Column("id", String(64), nullable=False, unique=True),
    Column(
        "interaction_id",
        String(64),
        ForeignKey("interaction.id", ondelete="CASCADE"),
        nullable=False,
        index=True,
    ),
    Column("at", Moment(), nullable=False),
    Column("key_id", String(64), nullable=True),  # whose
    Column("kind", String(16), nullable=False),  # thumbs | correction | label
    Column("value", String(255), nullable=False),  # up | down | the label; empty of corrections
    Column("text", Text, nullable=True),  # a correction or a remark, masked
    Column("digest", String(64), nullable=False),  # of who said what: the same again is the same
    UniqueConstraint("interaction_id", "digest"),
    sqlite_autoincrement=True,
)

# A row for each window that a monitor judged.
watch_result = Table(
    "watch_result",
    metadata,
    Column("number", Number, Identity(), primary_key=True),
    Column("monitor", String(100), nullable=False),
    Column("at", Moment(), nullable=False),
    Column("verdict", String(16), nullable=False),  # drift | stable | not_enough_data | ...
    Column("is_alarm", Boolean, nullable=False),  # after this window
    Column("action", String(16), nullable=True),  # as `monitoring.alarm.Action`
    Column("report", JSON, nullable=False),
    Index(None, "monitor", "number"),
    sqlite_autoincrement=True,
)

# Where the last window of a monitor ended whose windows are so many rows. A row that is erased
# moves nothing: numbers are never used twice.
watch_position = Table(
    "watch_position",
    metadata,
    Column("monitor", String(100), primary_key=True),
    Column("number", Number, nullable=False),  # of the window's last interaction
    Column("missing", Integer, nullable=False),  # rows to a full window, when last looked at
    Column("due", Moment(), nullable=False),  # when it is looked at next
)

# A row for each receiver that is still to be told what a window led to.
watch_untold = Table(
    "watch_untold",
    metadata,
    Column(
        "number", Number, ForeignKey("watch_result.number", ondelete="CASCADE"), primary_key=True
    ),
    Column("receiver", String(100), primary_key=True),
    Column("due", Moment(), nullable=False),  # when it is tried next
)

"""The tables of predictions that requests are answered from: batches, and answers by key."""

from __future__ import annotations

from sqlalchemy import JSON, Boolean, Column, ForeignKey, Identity, Index, String, Table

from infra.database.schema import Moment, Number, metadata

prediction_batch = Table(
    "prediction_batch",
    metadata,
    Column("number", Number, Identity(), primary_key=True),
    Column("model", String(128), nullable=False),  # without its kind
    Column("tenant", String(255), nullable=True),
    Column("job", String(64), nullable=False),
    Column("made_by", String(255), nullable=False),  # the version of the model, as it is told
    Column("digest", String(80), nullable=False),  # of it
    Column("key", JSON, nullable=False),  # by name of a column, what it holds
    Column("made_at", Moment(), nullable=False),
    Column("artifact", String(255), nullable=True),
    Column("is_live", Boolean, nullable=False),  # it answers; of a model and tenant one does
    Index(None, "model", "tenant"),
    sqlite_autoincrement=True,
)

cached_prediction = Table(
    "cached_prediction",
    metadata,
    Column(
        "batch_number",
        Number,
        ForeignKey("prediction_batch.number", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("key", String(64), primary_key=True),  # a digest: values may be long, and personal
    Column("answer", JSON, nullable=False),
)

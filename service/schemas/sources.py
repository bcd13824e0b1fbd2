"""Sources over HTTP: what is kept in step with what."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field, StringConstraints

from infra.contracts import Metadata
from retrieval.source_definitions import Definition
from service.schemas.shared import AllowList, Input, Tenant, unix

Place = Annotated[str, StringConstraints(min_length=1, max_length=2048)]
Word = Annotated[str, StringConstraints(min_length=1, max_length=255)]


class CreateSource(Input):
    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,99}$")]
    source: Place
    """A URL that begins as one of the server's `sources.remote`."""
    collection: Word
    """Public id or name of a vector store that there is."""
    options: dict[Word, Word] = Field(default_factory=dict, max_length=8)
    metadata: dict[Word, str | int | float | bool] = Field(default_factory=dict, max_length=16)
    tenant: Tenant | None = None
    allow: AllowList | None = None
    every: Annotated[str, StringConstraints(max_length=8)] | None = None
    """Such as `15m`, `6h` or `1d`."""


class RunSource(Input):
    allow_deletes: bool = False


class SourceOut(BaseModel):
    name: str
    object: Literal["source"] = "source"
    kind: str
    source: str
    collection: str
    options: dict[str, str]
    metadata: Metadata
    tenant: str | None
    allow: list[str] | None
    cron: str | None
    created_at: int

    @classmethod
    def of(cls, definition: Definition, *, cron: str | None) -> SourceOut:
        return cls(
            name=definition.name,
            kind=definition.spec.kind,
            source=definition.spec.place,
            collection=definition.collection,
            options=dict(definition.options),
            metadata=dict(definition.metadata),
            tenant=definition.readers.tenant if definition.readers else None,
            allow=list(definition.readers.allow) if definition.readers else None,
            cron=cron,
            created_at=unix(definition.created_at),
        )


class SourceList(BaseModel):
    object: Literal["list"] = "list"
    data: list[SourceOut]

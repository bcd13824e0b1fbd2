"""What is to be erased, and receipts of what was."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StringConstraints

from service.schemas.shared import Input, RawFilter, Tenant


class Erase(Input):
    """`documents` by id, or all that match `where`, or all of a tenant."""

    documents: list[Annotated[str, StringConstraints(max_length=64)]] = Field([], max_length=10_000)
    where: RawFilter | None = None
    tenant: Tenant | None = None
    snapshots: bool = Field(False, description="Delete the snapshots that hold them, too.")


class ErasedOut(BaseModel):
    id: str
    collection: str | None
    version: int
    digest: str
    source_sha256: str
    bytes: int
    characters: int
    chunks: dict[str, int]


class ReceiptOut(BaseModel):
    id: str
    object: Literal["erasure"] = "erasure"
    collection: str
    collection_name: str
    state: Literal["begun", "removed", "compacted"]
    requested_by: str
    tenant: str | None
    documents: list[ErasedOut]
    removed: dict[str, Any]
    compaction: dict[str, Any]
    created_at: datetime
    removed_at: datetime | None
    compacted_at: datetime | None
    snapshots: list[str] | None = None
    """That hold any of the documents now; looked up for a single receipt."""


class ReceiptList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ReceiptOut]
    has_more: bool

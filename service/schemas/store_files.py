"""Files attached to a vector store, alone and in batches."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StringConstraints, model_validator

from infra.contracts import Readers
from retrieval.batches import Batch
from retrieval.collections import Collection
from retrieval.documents import StoredDocument
from retrieval.paging import Page
from service.schemas.shared import AllowList, Attributes, Input, Tenant, plain, readers_of, unix
from service.schemas.vector_stores import (
    ChunkingStrategy,
    ContentPiece,
    FileCounts,
    StaticOut,
)

MAX_BATCH_FILES = 2000
FileId = Annotated[str, StringConstraints(min_length=1, max_length=64)]
Status = Literal["in_progress", "completed", "failed", "cancelled"]
_ERROR_CODES: dict[str, Literal["server_error", "unsupported_file"]] = {
    "server_error": "server_error",
    "unsupported": "unsupported_file",
}


class AttachFile(Input):
    file_id: FileId
    attributes: Attributes | None = None
    chunking_strategy: ChunkingStrategy | None = None
    tenant: Tenant | None = Field(None, description="Whose it is; a tenant's key writes its own.")
    allow: AllowList | None = None

    def readers(self) -> Readers | None:
        return readers_of(self.tenant, self.allow)


class UpdateFile(Input):
    """What is left out stays as it is."""

    attributes: Attributes | None = None
    tenant: Tenant | None = None
    allow: AllowList | None = None

    def readers(self) -> Readers | None:
        return readers_of(self.tenant, self.allow)

    @model_validator(mode="after")
    def _something(self) -> UpdateFile:
        if not self.model_fields_set:
            raise ValueError("give attributes, tenant or allow")
        return self

    def new_attributes(self) -> dict[str, Any] | None:
        return (self.attributes or {}) if "attributes" in self.model_fields_set else None


class CreateBatch(Input):
    """`file_ids`, all with the same attributes, or `files`, each with its own."""

    file_ids: list[FileId] | None = Field(None, min_length=1, max_length=MAX_BATCH_FILES)
    files: list[AttachFile] | None = Field(None, min_length=1, max_length=MAX_BATCH_FILES)
    attributes: Attributes | None = None
    chunking_strategy: ChunkingStrategy | None = None
    tenant: Tenant | None = None
    allow: AllowList | None = None


class LastError(BaseModel):
    code: Literal["server_error", "unsupported_file", "invalid_file"]
    message: str


class StoreFileOut(BaseModel):
    id: str
    object: Literal["vector_store.file"] = "vector_store.file"
    created_at: int
    usage_bytes: int
    vector_store_id: str
    status: Status
    last_error: LastError | None
    attributes: dict[str, Any]
    chunking_strategy: StaticOut
    tenant: str | None
    allow: list[str]

    @classmethod
    def of(cls, collection: Collection, document: StoredDocument) -> StoreFileOut:
        return cls.model_validate(
            {
                "id": document.file_id,
                "created_at": unix(document.created_at),
                "usage_bytes": document.bytes,
                "vector_store_id": collection.public_id,
                "status": document.status,
                "last_error": _last_error(document),
                "attributes": plain(document.metadata),
                "chunking_strategy": StaticOut.of(collection.recipe),
                "tenant": document.tenant,
                "allow": list(document.allow),
            }
        )


class StoreFileList(BaseModel):
    object: Literal["list"] = "list"
    data: list[StoreFileOut]
    first_id: str | None
    last_id: str | None
    has_more: bool

    @classmethod
    def of(cls, collection: Collection, page: Page[StoredDocument]) -> StoreFileList:
        data = [StoreFileOut.of(collection, item) for item in page.items]
        return cls(
            data=data,
            first_id=data[0].id if data else None,
            last_id=data[-1].id if data else None,
            has_more=page.has_more,
        )


class FileContent(BaseModel):
    """The text that was extracted: what every span counts in."""

    object: Literal["vector_store.file_content.page"] = "vector_store.file_content.page"
    file_id: str
    filename: str
    attributes: dict[str, Any]
    data: list[ContentPiece]
    has_more: Literal[False] = False
    next_page: None = None


class BatchOut(BaseModel):
    id: str
    object: Literal["vector_store.files_batch"] = "vector_store.files_batch"
    created_at: int
    vector_store_id: str
    status: Status
    file_counts: FileCounts

    @classmethod
    def of(cls, collection: Collection, batch: Batch) -> BatchOut:
        return cls.model_validate(
            {
                "id": batch.id,
                "created_at": unix(batch.created_at),
                "vector_store_id": collection.public_id,
                "status": batch.status,
                "file_counts": {
                    "in_progress": batch.in_progress,
                    "completed": batch.completed,
                    "failed": batch.failed,
                    "cancelled": batch.cancelled,
                    "total": batch.total,
                },
            }
        )


def _last_error(document: StoredDocument) -> LastError | None:
    if document.status != "failed":
        return None
    return LastError(
        code=_ERROR_CODES.get(document.error_code or "", "invalid_file"),
        message=document.error_message or "The file cannot be read",
    )

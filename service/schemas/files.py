"""OpenAI's files: bytes as they came, before any collection reads them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from retrieval.files import StoredFile
from retrieval.paging import Page
from service.schemas.shared import unix

Purpose = Literal["assistants", "batch", "fine-tune", "vision", "user_data", "evals"]
"""What a client may upload for; documents read from disk have the purpose `ingest`."""


class FileOut(BaseModel):
    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None = None
    filename: str
    purpose: str
    status: Literal["processed"] = "processed"
    status_details: str | None = None

    @classmethod
    def of(cls, file: StoredFile) -> FileOut:
        return cls(
            id=file.id,
            bytes=file.bytes,
            created_at=unix(file.created_at),
            filename=file.filename,
            purpose=file.purpose,
        )


class FileList(BaseModel):
    object: Literal["list"] = "list"
    data: list[FileOut]
    first_id: str | None
    last_id: str | None
    has_more: bool

    @classmethod
    def of(cls, page: Page[StoredFile]) -> FileList:
        data = [FileOut.of(item) for item in page.items]
        return cls(
            data=data,
            first_id=data[0].id if data else None,
            last_id=data[-1].id if data else None,
            has_more=page.has_more,
        )

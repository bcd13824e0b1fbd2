"""OpenAI's files: upload, list, read, delete."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, File, Form, Query, Request, UploadFile
from starlette.responses import FileResponse

from infra.artifacts.blobs import PIECE
from infra.errors import InvalidRequest
from service.bodies import StrictRoute
from service.dependencies import Own, Parts
from service.limits import in_thread
from service.schemas.files import FileList, FileOut, Purpose
from service.schemas.shared import OPENAI_ERRORS, Deleted
from service.work import erasing

router = APIRouter(
    prefix="/v1/files", tags=["files"], route_class=StrictRoute, responses=OPENAI_ERRORS
)
FIELDS = frozenset({"file", "purpose"})


@router.post("")
async def create(
    request: Request,
    file: Annotated[UploadFile, File()],
    purpose: Annotated[Purpose, Form()],
    components: Parts,
    seen: Own,
) -> FileOut:
    """Store a file; when this answers, it is durable. Attach it to a vector store to search it."""
    for name in (await request.form()).keys() - FIELDS:
        raise InvalidRequest(
            f"{name!r} is not supported: a file stays until it is deleted", parameter=name
        )
    stored = await in_thread(
        lambda: seen.files.add(
            file.filename or "",
            iter(lambda: file.file.read(PIECE), b""),
            purpose=purpose,
            max_bytes=components.settings.server.max_upload_bytes,
        )
    )
    return FileOut.of(stored)


@router.get("")
def list_files(
    seen: Own,
    purpose: Annotated[str | None, Query(max_length=32)] = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    after: str | None = None,
    order: Literal["asc", "desc"] = "desc",
) -> FileList:
    """List files by time of arrival, at most 1,000 at once."""
    page = seen.files.list(purpose=purpose, limit=limit, after=after, descending=order == "desc")
    return FileList.of(page)


@router.get("/{file_id}")
def get(file_id: str, seen: Own) -> FileOut:
    """Return one file."""
    return FileOut.of(seen.files.get(file_id))


@router.get(
    "/{file_id}/content",
    response_class=FileResponse,
    responses={200: {"content": {"application/octet-stream": {}}}},
)
def read(file_id: str, seen: Own) -> FileResponse:
    """Return the bytes as they came."""
    stored = seen.files.get(file_id)
    return FileResponse(
        seen.files.path(file_id),
        media_type="application/octet-stream",
        filename=stored.filename,
    )


@router.delete("/{file_id}")
def delete(file_id: str, components: Parts, seen: Own) -> Deleted:
    """Remove a file, its bytes and every document that was made from it."""
    asked = erasing.asked(seen.caller, with_files=True)
    components.erasure.erase_file(seen.documents, file_id, asked=asked)
    return Deleted(id=file_id, object="file")

"""Files of a vector store: attach, follow, change their attributes, read, detach."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response

from infra.errors import InvalidRequest
from service.bodies import StrictRoute
from service.dependencies import Own, Parts, Store
from service.routes.vector_stores import set_sequence
from service.schemas.shared import MAX_LIST, OPENAI_ERRORS, Deleted
from service.schemas.store_files import (
    AttachFile,
    BatchOut,
    CreateBatch,
    FileContent,
    Status,
    StoreFileList,
    StoreFileOut,
    UpdateFile,
)
from service.schemas.vector_stores import ContentPiece, refuse_other_strategy
from service.work import erasing, ingesting

router = APIRouter(
    prefix="/v1/vector_stores/{vector_store_id}",
    tags=["vector stores"],
    route_class=StrictRoute,
    responses=OPENAI_ERRORS,
)
READ_EVERY = 20
"""Files of a batch after which reading begins, while the rest is attached."""


@router.post("/files")
def attach(body: AttachFile, store: Store, components: Parts, seen: Own) -> StoreFileOut:
    """Attach an uploaded file; it is `in_progress` until it has been read."""
    refuse_other_strategy(store, body.chunking_strategy)
    document = ingesting.attach(
        components,
        store,
        body.file_id,
        documents=seen.documents,
        metadata=body.attributes,
        readers=body.readers(),
    )
    return StoreFileOut.of(store, document)


@router.get("/files")
def list_files(
    store: Store,
    seen: Own,
    filter: Status | None = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIST)] = 20,
    order: Literal["asc", "desc"] = "desc",
    after: str | None = None,
    before: str | None = None,
) -> StoreFileList:
    """List a store's files by time of attachment, `filter` by status."""
    page = seen.documents.list(
        store,
        status=filter,
        limit=limit,
        after=after,
        before=before,
        descending=order == "desc",
    )
    return StoreFileList.of(store, page)


@router.get("/files/{file_id}")
def get(
    file_id: str, store: Store, components: Parts, seen: Own, response: Response
) -> StoreFileOut:
    """Return one file of a store; once `completed`, the sequence header covers it."""
    document = seen.documents.get(store, file_id)
    set_sequence(store, components, seen, response)
    return StoreFileOut.of(store, document)


@router.post("/files/{file_id}")
def update(
    body: UpdateFile,
    file_id: str,
    store: Store,
    components: Parts,
    seen: Own,
    response: Response,
) -> StoreFileOut:
    """Replace a file's attributes, or who may read it; nothing is embedded again."""
    document = seen.documents.update(
        store, file_id, metadata=body.new_attributes(), readers=body.readers()
    )
    set_sequence(store, components, seen, response)
    return StoreFileOut.of(store, document)


@router.delete("/files/{file_id}")
def detach(file_id: str, store: Store, components: Parts, seen: Own, response: Response) -> Deleted:
    """Remove a file from a store; the uploaded file itself stays."""
    asked = erasing.asked(seen.caller, with_files=False)
    components.erasure.erase(seen.documents, store, [file_id], asked=asked)
    set_sequence(store, components, seen, response)
    return Deleted(id=file_id, object="vector_store.file.deleted")


@router.get("/files/{file_id}/content")
def read(file_id: str, store: Store, seen: Own) -> FileContent:
    """Return the text that was extracted from a file."""
    document = seen.documents.get(store, file_id)
    text = seen.documents.read_text(file_id, document.version, 0, document.characters)
    return FileContent(
        file_id=file_id,
        filename=document.filename,
        attributes=dict(document.metadata),
        data=[ContentPiece(text=text)] if text else [],
    )


@router.post("/file_batches")
def create_batch(body: CreateBatch, store: Store, components: Parts, seen: Own) -> BatchOut:
    """Attach many files at once and follow them as one."""
    entries = _entries(body)
    for entry in entries:
        refuse_other_strategy(store, entry.chunking_strategy)
        seen.files.get(entry.file_id)
    for number, entry in enumerate(entries, 1):
        seen.documents.attach(
            store, entry.file_id, metadata=entry.attributes, readers=entry.readers()
        )
        if number % READ_EVERY == 0 or number == len(entries):
            ingesting.read_attached(components, store.public_id)
    batch = seen.batches.create(store, [entry.file_id for entry in entries])
    return BatchOut.of(store, batch)


@router.get("/file_batches/{batch_id}")
def get_batch(batch_id: str, store: Store, seen: Own) -> BatchOut:
    """Return a batch with its files counted by status."""
    return BatchOut.of(store, seen.batches.get(store, batch_id))


@router.post("/file_batches/{batch_id}/cancel")
def cancel_batch(batch_id: str, store: Store, seen: Own) -> BatchOut:
    """Leave the files of a batch that have not been read yet unread."""
    return BatchOut.of(store, seen.batches.cancel(store, batch_id))


@router.get("/file_batches/{batch_id}/files")
def list_batch_files(
    batch_id: str,
    store: Store,
    seen: Own,
    filter: Status | None = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIST)] = 20,
    order: Literal["asc", "desc"] = "desc",
    after: str | None = None,
    before: str | None = None,
) -> StoreFileList:
    """List the files of a batch."""
    page = seen.batches.list_documents(
        store,
        batch_id,
        status=filter,
        limit=limit,
        after=after,
        before=before,
        descending=order == "desc",
    )
    return StoreFileList.of(store, page)


def _entries(body: CreateBatch) -> list[AttachFile]:
    if (body.file_ids is None) == (body.files is None):
        raise InvalidRequest("Give either file_ids or files", parameter="file_ids")
    if body.files is not None:
        return body.files
    return [
        AttachFile(
            file_id=file_id,
            attributes=body.attributes,
            chunking_strategy=body.chunking_strategy,
            tenant=body.tenant,
            allow=body.allow,
        )
        for file_id in body.file_ids or []
    ]

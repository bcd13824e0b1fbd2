"""Erasing, compacting and receipts; for the operator's keys."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from service.bodies import StrictRoute
from service.dependencies import Asking, Operator, Own, Parts
from service.schemas.erasures import Erase, ReceiptList, ReceiptOut
from service.schemas.jobs import JobOut
from service.schemas.shared import MAX_LIST, OPENAI_ERRORS, parse_filter
from service.work import erasing

router = APIRouter(
    prefix="/v1",
    tags=["erasures"],
    route_class=StrictRoute,
    responses=OPENAI_ERRORS,
    dependencies=[Operator],
)


@router.post("/collections/{collection_id}/erase")
def erase(
    collection_id: str, body: Erase, components: Parts, seen: Own, caller: Asking
) -> ReceiptOut:
    """Remove documents with their files; a compaction then empties the files of the service."""
    whole = seen.collections.get(collection_id)
    chosen = erasing.choose(
        components,
        whole,
        documents=body.documents,
        where=parse_filter(body.where),
        tenant=body.tenant,
    )
    receipt = erasing.erase(
        components, whole, chosen, by=caller.name, snapshots=body.snapshots, compact=False
    )
    return ReceiptOut(**erasing.shown(components, receipt))


@router.post("/collections/{collection_id}/compact")
def compact(collection_id: str, components: Parts, seen: Own) -> JobOut:
    """Write index and database anew without what was deleted, as a job."""
    whole = seen.collections.get(collection_id)
    return JobOut.of(erasing.queue_compaction(components, whole))


@router.get("/erasures")
def list_receipts(
    components: Parts,
    collection: Annotated[str | None, Query(max_length=64, description="Its id.")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIST)] = 20,
    after: str | None = None,
) -> ReceiptList:
    """List receipts, the latest first."""
    page = components.erasure.receipts.list(collection=collection, limit=limit, after=after)
    return ReceiptList(
        data=[ReceiptOut(**each.as_dict()) for each in page.items], has_more=page.has_more
    )


@router.get("/erasures/{receipt_id}")
def get(receipt_id: str, components: Parts) -> ReceiptOut:
    """Return one receipt, with the snapshots that hold any of its documents now."""
    receipt = components.erasure.receipts.get(receipt_id)
    return ReceiptOut(**erasing.shown(components, receipt))

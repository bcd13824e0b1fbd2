"""OpenAI's vector stores: create, list, change, delete, search."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response

from infra.contracts import Passage
from infra.security import new_id
from retrieval.collections import Collection
from retrieval.search import SearchRequest
from service.bodies import StrictRoute
from service.dependencies import Asked, Own, Parts, Store
from service.schemas.shared import MAX_LIST, OPENAI_ERRORS, Deleted, parse_filter
from service.schemas.vector_stores import (
    DESCRIPTION,
    CreateStore,
    FoundOut,
    FoundPage,
    SearchStore,
    StoreList,
    StoreOut,
    UpdateStore,
    recipe_for,
    refuse_expiry,
)
from service.seen import Seen
from service.wiring import Components
from service.work import erasing, ingesting

router = APIRouter(
    prefix="/v1/vector_stores",
    tags=["vector stores"],
    route_class=StrictRoute,
    responses=OPENAI_ERRORS,
)
SEQUENCE = "X-Ragstone-Sequence"
"""Of the collection's last change; a search with it as `min_sequence` sees all until then."""


@router.post("")
def create(body: CreateStore, components: Parts, seen: Own, response: Response) -> StoreOut:
    """Create a vector store, and attach files to it if any are named."""
    refuse_expiry(body.expires_after)
    file_ids = list(dict.fromkeys(body.file_ids))
    for file_id in file_ids:
        seen.files.get(file_id)
    collection = seen.collections.create(
        body.name or new_id("store-"),
        recipe_for(components, body.chunking_strategy),
        attributes=body.attributes(),
        tenant=body.tenant,
    )
    for file_id in file_ids:
        seen.documents.attach(collection, file_id)
    if file_ids:
        ingesting.read_attached(components, collection.public_id)
    return show(collection, components, seen, response)


@router.get("")
def list_stores(
    seen: Own,
    limit: Annotated[int, Query(ge=1, le=MAX_LIST)] = 20,
    order: Literal["asc", "desc"] = "desc",
    after: str | None = None,
    before: str | None = None,
) -> StoreList:
    """List vector stores by time of creation."""
    page = seen.collections.list(
        limit=limit, after=after, before=before, descending=order == "desc"
    )
    stores = [_out(item, seen) for item in page.items]
    return StoreList(
        data=stores,
        first_id=stores[0].id if stores else None,
        last_id=stores[-1].id if stores else None,
        has_more=page.has_more,
    )


@router.get("/{vector_store_id}")
def get(store: Store, components: Parts, seen: Own, response: Response) -> StoreOut:
    """Return a vector store, by id or name."""
    return show(store, components, seen, response)


@router.post("/{vector_store_id}")
def update(
    body: UpdateStore, store: Store, components: Parts, seen: Own, response: Response
) -> StoreOut:
    """Rename a vector store or replace its metadata; the model `rag/<name>` goes with the name."""
    refuse_expiry(body.expires_after)
    attributes = None
    if body.metadata is not None:
        kept = (
            {DESCRIPTION: store.attributes[DESCRIPTION]} if DESCRIPTION in store.attributes else {}
        )
        attributes = {**body.metadata, **kept}
    changed = seen.collections.update(store.public_id, new_name=body.name, attributes=attributes)
    return show(changed, components, seen, response)


@router.delete("/{vector_store_id}")
def delete(store: Store, components: Parts, seen: Own) -> Deleted:
    """Remove a vector store with everything derived from its files; uploaded files stay."""
    seen.require_own(store)
    asked = erasing.asked(seen.caller, with_files=False)
    components.delete_collection(store.public_id, asked=asked)
    return Deleted(id=store.public_id, object="vector_store.deleted")


@router.post("/{vector_store_id}/search")
async def search(body: SearchStore, store: Store, asked: Asked, response: Response) -> FoundPage:
    """Return the passages that match best; of several queries, each passage's best score counts."""
    options = body.ranking_options
    request = SearchRequest(
        text="",
        limit=body.max_num_results,
        filter=parse_filter(body.filters),
        min_score=options.score_threshold if options else None,
        dense_weight=options.dense_weight if options else None,
        min_sequence=body.min_sequence,
    )
    best: dict[int, Passage] = {}
    for query in body.queries():
        result = await asked.search(store.public_id, replace(request, text=query))
        for passage in result.passages:
            known = best.get(passage.chunk_id)
            if known is None or passage.score > known.score:
                best[passage.chunk_id] = passage
    response.headers.update(asked.headers)
    ranked = sorted(best.values(), key=lambda passage: (-passage.score, passage.chunk_id))
    return FoundPage(
        search_query=body.queries(),
        data=[FoundOut.of(passage) for passage in ranked[: body.max_num_results]],
    )


def show(
    collection: Collection, components: Components, seen: Seen, response: Response
) -> StoreOut:
    """Return a store's present state, with the sequence of its last change in a header."""
    set_sequence(collection, components, seen, response)
    return _out(collection, seen)


def set_sequence(
    collection: Collection, components: Components, seen: Seen, response: Response
) -> None:
    """Tell how far the collection's log is; not a tenant, because it counts what others write."""
    if seen.access is not None:
        return
    sequence = components.views.get(collection).latest_sequence()
    response.headers[SEQUENCE] = str(sequence)


def _out(collection: Collection, seen: Seen) -> StoreOut:
    counts = seen.collections.statistics(collection.id)
    latest = collection.last_active_at
    if seen.access is not None:  # what others did is not to be seen
        latest = counts.last_active_at or collection.created_at
    return StoreOut.of(collection, counts, last_active_at=latest)

"""Erasing and compacting, for the terminal and over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from infra.errors import InvalidRequest
from infra.jobs.attempt import Attempt
from infra.jobs.definitions import Behaviour, Registry
from infra.jobs.records import Job
from service.work.erased_snapshots import delete_snapshots, holding

if TYPE_CHECKING:
    from retrieval.collections import Collection
    from retrieval.filters import Filter
    from retrieval.receipts import Receipt
    from service.callers import Caller
    from service.wiring import Components

COMPACT = "compact"
LANE = "compact/{collection}"
TERMINAL = "terminal"
"""Who asked, where nobody shows a key."""


def define(registered: Registry, parts: Components) -> None:
    """Register the job of this file."""

    @registered.job(COMPACT, behaviour=Behaviour(steps=False, lane=LANE, join=True))
    def compact(attempt: Attempt, *, collection: str) -> dict[str, Any]:
        whole = parts.collections.get(collection)
        attempt.progress(None, f"compacting {whole.name!r}")
        done = parts.compactor.compact(whole).as_dict()
        for line in done["left"]:
            attempt.log(line, level="warning")
        return done


def queue_compaction(parts: Components, whole: Collection) -> Job:
    """Have a collection compacted by a worker."""
    return parts.jobs.start(COMPACT, {"collection": whole.public_id})


def asked(caller: Caller, *, with_files: bool) -> Any:
    """Return who asks, as a receipt says it."""
    from retrieval.receipts import Asked

    return Asked(caller.name, caller.tenant, with_files)


def choose(
    parts: Components,
    whole: Collection,
    *,
    documents: Sequence[str] = (),
    where: Filter | None = None,
    tenant: str | None = None,
) -> Sequence[str]:
    """Return the ids of the documents that are meant.

    Raises:
        InvalidRequest: nothing, or more than one kind of choice, is given.
        InvalidFilter: no document has such a field, or values of that kind in it.
        NotFound: nothing matches.
    """
    from retrieval.erasure import select_documents

    if bool(documents) + (where is not None or tenant is not None) != 1:
        raise InvalidRequest(
            "Name documents, or choose them by a filter or a tenant", parameter="documents"
        )
    if documents:
        return documents
    view = parts.views.get(whole)
    with parts.database.read() as connection:
        return select_documents(view, connection, chosen=where, tenant=tenant)


def erase(
    parts: Components,
    whole: Collection,
    documents: Sequence[str],
    *,
    by: str,
    snapshots: bool = False,
    compact: bool = True,
) -> Receipt:
    """Remove documents with their files, compact the collection, and return the receipt.

    Raises:
        NotFound: one of them is not there; nothing was removed.
        StorageFailed: the documents are removed, and the compaction met a full disk or a locked
            database; compact again.
    """
    from retrieval.receipts import Asked

    parts.erasure.finish(collection=whole.public_id)
    receipt = parts.erasure.erase(parts.documents, whole, documents, asked=Asked(by))
    if snapshots:
        delete_snapshots(parts, holding(parts, receipt.documents))
    if compact:
        parts.compactor.compact(whole)
    return parts.erasure.receipts.get(receipt.id)


def shown(parts: Components, receipt: Receipt) -> dict[str, Any]:
    """Return a receipt with the snapshots that hold any of its documents now."""
    return {**receipt.as_dict(), "snapshots": holding(parts, receipt.documents)}

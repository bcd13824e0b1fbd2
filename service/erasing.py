"""Erasing and compacting, for the terminal and over HTTP; which snapshots hold what was erased."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from infra.errors import Conflict, InvalidRequest, NotFound
from infra.jobs.attempt import Attempt
from infra.jobs.definitions import Behaviour, Registry
from infra.jobs.records import Job
from infra.plugins import require
from service.snapshots import KIND

if TYPE_CHECKING:
    from retrieval.collections import Collection
    from retrieval.filters import Filter
    from retrieval.receipts import ErasedDocument, Receipt
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


def holding(parts: Components, documents: Sequence[ErasedDocument]) -> list[str]:
    """Return the snapshots, such as `collection/faq@v3`, that hold any of the documents.

    A document is known by its id or, because a restored one has another, by its bytes.
    """
    ids = {each.id for each in documents}
    digests = {each.digest for each in documents if each.digest}
    return [reference for reference in _snapshots(parts) if _holds(parts, reference, ids | digests)]


def delete_snapshots(parts: Components, references: Sequence[str]) -> None:
    """Let versions go and remove the objects that nothing else needs, for good.

    Raises:
        Conflict: an alias holds one of them; none was removed.
    """
    from infra.artifacts.gc import Policy

    if not references:
        return
    for name in parts.artifacts.names(KIND):
        for version in parts.artifacts.versions(f"{name.kind}/{name.name}"):
            if str(version.reference) in references and version.aliases:
                raise Conflict(
                    f"{version.reference} is {version.aliases[0]!r}; move that alias first"
                )
    for reference in references:
        parts.artifacts.expire(reference)
    everything = Policy(grace=timedelta(0), trash=timedelta(0))
    parts.artifacts.gc(everything)
    parts.artifacts.gc(everything)  # what the first one put into the trash


def _snapshots(parts: Components) -> Iterator[str]:
    for name in parts.artifacts.names(KIND):
        for version in parts.artifacts.versions(f"{name.kind}/{name.name}"):
            yield str(version.reference)


def _holds(parts: Components, reference: str, wanted: set[str]) -> bool:
    parquet = require("pyarrow.parquet", extra="data")
    try:
        with (
            parts.artifacts.reading(reference),
            parts.artifacts.open(reference, "documents.parquet") as stream,
            parquet.ParquetFile(stream) as stored,
        ):
            return any(
                not wanted.isdisjoint(
                    value for column in batch.columns for value in column.to_pylist()
                )
                for batch in stored.iter_batches(columns=["file_id", "digest"])
            )
    except NotFound:  # collected this moment, or no snapshot of a collection
        return False

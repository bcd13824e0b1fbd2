"""Which snapshots hold documents that were erased; they never change, so they go as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from infra.errors import Conflict, NotFound
from infra.plugins import require
from service.work.snapshots import KIND

if TYPE_CHECKING:
    from retrieval.receipts import ErasedDocument
    from service.wiring import Components


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
    from service import stored_models

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
    for _ in range(2):  # the second removes what the first one put into the trash
        parts.artifacts.gc(everything, roots=lambda: stored_models.used(parts))


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

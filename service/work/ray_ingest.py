"""Ingest on a Ray cluster: workers read, split, embed and commit; the database counts each once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.plugins import require
from service.work.ray_connection import RETRIES, WorkersDied, connected

if TYPE_CHECKING:
    from infra.settings import Settings
    from retrieval.collections import Collection
    from retrieval.ingest import Event, Summary
    from retrieval.sources import Source, Unwalkable

BATCH_DOCUMENTS = 32
"""One task: enough for even batches of the embedder, little enough to repeat after a crash."""


def ingest_on_ray(
    settings: Settings,
    into: Collection,
    sources: Iterable[Source | Unwalkable],
    *,
    workers: int,
    batch_documents: int = BATCH_DOCUMENTS,
) -> Summary:
    """Read sources into a collection with `workers` processes of a Ray cluster.

    Connects to the cluster that `RAY_ADDRESS` names, or starts one on this machine. Every document
    is one transaction; a task that is repeated after its worker died finds the documents it had
    committed by their digest and passes over them, so a document is committed once. A worker is
    begun anew, and a task repeated, `RETRIES` times at most.

    Workers open the same settings: on several machines the database must be PostgreSQL, and data
    folder and sources must be shared.

    Raises:
        MissingDependency: Ray is not installed.
        InvalidConfiguration: the cluster's nodes could not share an SQLite file.
        WorkersDied: a worker did, more often than it is begun anew.
    """
    from retrieval.ingest import Summary
    from retrieval.sources import Unwalkable

    summary = Summary()
    items = []
    for source in sources:
        if isinstance(source, Unwalkable):
            summary.add(_event("Skipped", uri=source.uri, code="unreadable", message=source.reason))
        else:
            items.append(_item(source))
    if not items:
        return summary
    with connected(settings):
        data = require("ray.data", extra="ray")
        data.DataContext.get_current().enable_progress_bars = False
        events = data.from_items(items, override_num_blocks=_blocks(len(items), batch_documents))
        events = events.map_batches(
            _Worker,
            fn_constructor_kwargs={"settings": settings, "collection": into.name},
            batch_size=batch_documents,
            compute=data.ActorPoolStrategy(size=workers),
            max_restarts=RETRIES,
            max_task_retries=RETRIES,
            num_cpus=1,
        )
        for row in _rows(events):
            summary.add(_event(row["kind"], **row["values"]))
    return summary


def _rows(events: Any) -> Iterator[dict[str, Any]]:
    exceptions = require("ray.exceptions", extra="ray")
    try:
        yield from events.iter_rows()
    except exceptions.RayActorError as error:
        raise WorkersDied(
            f"a worker died {RETRIES + 1} times; give it more memory or fewer workers, or find "
            "the document by an ingest without --on ray, and run it again: documents that are "
            "committed are passed over"
        ) from error


class _Worker:
    """One process with its own parts, kept for all its batches."""

    def __init__(self, *, settings: Settings, collection: str) -> None:
        from service.wiring import Components

        self._parts = Components(settings)
        self._into = self._parts.collections.get(collection)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[Any]]:
        from dataclasses import asdict

        events = [
            event
            for event in self._parts.ingester.ingest(self._into, _sources(batch))
            if type(event).__name__ != "Embedded"
        ]
        return {
            "kind": [type(event).__name__ for event in events],
            "values": [asdict(event) for event in events],
        }


def _sources(batch: Mapping[str, Any]) -> Iterator[Source]:
    from json import loads

    from infra.contracts import Readers
    from retrieval.sources import Source

    columns = (batch[name] for name in ("uri", "path", "filename", "metadata", "readers"))
    for uri, path, filename, metadata, given in zip(*columns, strict=True):
        named = loads(str(given))
        readers = Readers(named["tenant"], tuple(named["allow"])) if named else None
        yield Source(str(uri), Path(str(path)), str(filename), loads(str(metadata)), readers)


def _item(source: Source) -> dict[str, str]:
    from dataclasses import asdict
    from json import dumps

    return {
        "uri": source.uri,
        "path": str(source.path.absolute()),
        "filename": source.filename,
        "metadata": dumps(dict(source.metadata)),
        "readers": dumps(asdict(source.readers) if source.readers else None),
    }


def _event(kind: str, **values: Any) -> Event:
    from retrieval import ingest

    event: Event = getattr(ingest, kind)(**{k: v for k, v in values.items() if v is not None})
    return event


def _blocks(documents: int, batch_documents: int) -> int:
    return max(1, -(-documents // batch_documents))

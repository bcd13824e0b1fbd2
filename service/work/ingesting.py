"""Ingest as jobs: the attached files of a collection, and folders that the terminal names."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from infra.errors import NotFound, NotReady, RagstoneError, StorageFailed
from infra.jobs.attempt import Attempt
from infra.jobs.definitions import Behaviour, Options, Registry, Resources, Retries
from infra.jobs.records import Job
from service.work import lanes

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from infra.contracts import Readers
    from retrieval.collections import Collection
    from retrieval.documents import Documents, StoredDocument
    from retrieval.ingest import Event
    from retrieval.sources import Source, Unwalkable
    from service.wiring import Components

logger = logging.getLogger(__name__)

ATTACHED = "ingest_attached"
FOLDERS = "ingest_folders"
PATIENT = Retries(attempts=10_000, first_delay_seconds=1.0, max_delay_seconds=60.0, crashes=1000)
"""Storage comes back; what is wrong with a file itself is noted at the file."""
SUSPICIOUS_CRASHES = 3
"""Deaths of the process while the same file was read, after which that file is given up."""
LINGER_SECONDS = 0.5
LOOK_SECONDS = 0.1
"""Between looks for what other processes attach; what this one attaches is seen at once."""
SHOWN_SKIPPED = 100
"""Of the files that could not be read, in a job's result."""
ATTACHED_PRIORITY = 10
"""Somebody waits for a file that was attached."""

Outcome = Literal["completed", "failed", "removed", "passed"]


def define(registered: Registry, parts: Components) -> None:
    """Register the jobs of this file."""

    # It shares the processor with whatever runs, so that a long training delays no attached file.
    @registered.job(
        ATTACHED,
        resources=Resources(cpu=0),
        retries=PATIENT,
        behaviour=Behaviour(steps=False, lane=lanes.WRITING, join=True, remote=True),
    )
    def ingest_attached(attempt: Attempt, *, collection: str) -> dict[str, Any]:
        if not str(collection).startswith("vs_"):  # a name, and the lane goes by the id
            return {"job": read_attached(parts, parts.collections.get(collection).public_id).id}
        return _Attached(attempt, parts, collection).read()

    @registered.job(
        FOLDERS,
        resources=Resources(cpu=1),
        retries=PATIENT,
        behaviour=Behaviour(steps=False, lane=lanes.of_collection(parts, lanes.WRITING)),
    )
    def ingest_folders(
        attempt: Attempt,
        *,
        collection: str,
        paths: list[str],
        metadata: dict[str, Any] | None = None,
        prune: bool = False,
        readers: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        from infra.contracts import Readers
        from retrieval.sources.folder import walk

        given = Readers(readers["tenant"], tuple(readers["allow"])) if readers else None
        folders = [Path(path) for path in paths]
        return _read_folders(
            attempt,
            parts,
            parts.collections.get(collection),
            paths=folders,
            sources=list(walk(folders, metadata=metadata, readers=given)),
            prune=prune,
        )


def attach(
    parts: Components,
    into: Collection,
    file_id: str,
    *,
    documents: Documents,
    metadata: Mapping[str, Any] | None = None,
    readers: Readers | None = None,
) -> StoredDocument:
    """Accept an uploaded file and have it read, in one transaction; raises as `attach` does.

    `documents` are those that the caller may see; the job that reads the file leaves them whose
    they are.
    """
    attached = documents.attach(
        into,
        file_id,
        metadata=metadata,
        readers=readers,
        announce=lambda connection: read_attached(parts, into.public_id, connection=connection),
    )
    parts.jobs.tell()
    return attached


def read_attached(
    parts: Components, collection_id: str, *, connection: Connection | None = None
) -> Job:
    """Have the files that are attached to a collection, given by its public id, read."""
    return parts.jobs.start(
        ATTACHED,
        {"collection": collection_id},
        options=Options(priority=ATTACHED_PRIORITY),
        connection=connection,
    )


def read_folders(
    parts: Components,
    into: Collection,
    paths: Sequence[Path],
    *,
    metadata: Mapping[str, Any],
    readers: Readers | None = None,
    prune: bool = False,
) -> Job:
    """Have files and folders, as the worker's machine knows them, read into a collection."""
    arguments = {
        "collection": into.public_id,
        "paths": [str(path.resolve()) for path in paths],
        "metadata": dict(metadata),
        "prune": prune,
        "readers": asdict(readers) if readers else None,
    }
    return parts.jobs.start(FOLDERS, arguments)


def take_up(parts: Components) -> int:
    """Start a job for every collection with files that were accepted and not read; how many."""
    waiting = dict.fromkeys(collection_id for collection_id, _ in parts.documents.pending())
    for collection_id in waiting:
        read_attached(parts, collection_id)
    return len(waiting)


def count_waiting(parts: Components) -> float:
    """Return how many attached files wait to be read; NaN while the database does not tell."""
    try:
        return float(len(parts.documents.pending()))
    except StorageFailed:
        return float("nan")


def leave_unread(parts: Components, collection_id: str) -> int:
    """Cancel the files of a collection that wait to be read; returns how many."""
    try:
        return parts.documents.cancel(parts.collections.get(collection_id))
    except NotFound:
        return 0


class _Attached:
    """One attempt at all the files that wait in one collection, in order of arrival.

    Each file is one transaction, and its status says whether it is still to do: nothing else has
    to be remembered.
    """

    def __init__(self, attempt: Attempt, parts: Components, collection_id: str) -> None:
        self._attempt = attempt
        self._parts = parts
        self._collection_id = collection_id
        self._done: dict[str, Outcome] = {}

    def read(self) -> dict[str, Any]:
        """Read until nothing waits; files that are attached meanwhile are read too."""
        waiting = self._waiting()
        if self._attempt.claim.crashes and waiting:
            self._suspect(waiting[0])
            waiting = self._waiting()
        while waiting:
            for position, file_id in enumerate(waiting):
                self._attempt.check()
                done, total = len(self._done), len(self._done) + len(waiting) - position
                if done:
                    self._attempt.progress(done / total, f"{done} of {total} files")
                self._done[file_id] = self._read(file_id)
            waiting = self._waiting() or self._linger()
        return dict(Counter(self._done.values()))

    def _linger(self) -> list[str]:
        """Stay a moment: files that are attached one by one need not a job each."""
        arrived = threading.Event()
        forget = self._parts.jobs.subscribe(arrived.set)
        deadline = time.monotonic() + LINGER_SECONDS
        try:
            while time.monotonic() < deadline:
                if waiting := self._waiting():
                    return waiting
                arrived.wait(LOOK_SECONDS)
                arrived.clear()
                self._attempt.check()
        finally:
            forget()
        return []

    def _waiting(self) -> list[str]:
        return [
            file_id
            for collection_id, file_id in self._parts.documents.pending()
            if collection_id == self._collection_id and file_id not in self._done
        ]

    def _read(self, file_id: str) -> Outcome:
        parts = self._parts
        try:
            collection = parts.collections.get(self._collection_id)
            committed = parts.ingester.process(collection, file_id)
        except NotFound:
            logger.info("%s was removed before it was read", file_id)
            parts.metrics.count_document("removed")
            return "removed"
        except (StorageFailed, NotReady):
            raise
        except (RagstoneError, ValueError, OSError, RuntimeError) as error:
            # Whatever goes wrong with one file must not stop the files behind it.
            logger.exception("ingest of %s failed", file_id)
            self._fail(collection, file_id, f"{type(error).__name__}: {error}")
            return "failed"
        if committed is not None:
            parts.metrics.count_document("completed", chunks=committed.chunks)
            return "completed"
        outcome = self._ended(collection, file_id)
        if outcome != "passed":
            parts.metrics.count_document(outcome)
        return outcome

    def _ended(
        self, collection: Collection, file_id: str
    ) -> Literal["failed", "removed", "passed"]:
        try:
            stored = self._parts.documents.get(collection, file_id)
        except NotFound:
            return "removed"
        if stored.status != "failed":
            return "passed"  # cancelled before it was begun
        self._attempt.log(f"{stored.filename}: {stored.error_message}", level="warning")
        return "failed"

    def _fail(self, collection: Collection, file_id: str, message: str) -> None:
        self._parts.documents.fail(collection, file_id, code="server_error", message=message)
        self._parts.metrics.count_document("failed")
        self._attempt.log(f"{file_id}: {message}", level="error")

    def _suspect(self, file_id: str) -> None:
        """Note which file was being read when the process died; give it up if it goes on so."""
        note = f"the process died while {file_id} was read"
        lines = self._parts.jobs.logs(self._attempt.job_id, limit=100_000)
        deaths = 1 + sum(line.message == note for line in lines)
        self._attempt.log(note, level="warning")
        if deaths >= SUSPICIOUS_CRASHES:
            collection = self._parts.collections.get(self._collection_id)
            self._fail(collection, file_id, f"The process died {deaths} times while it was read")
            self._done[file_id] = "failed"


def _read_folders(
    attempt: Attempt,
    parts: Components,
    into: Collection,
    *,
    paths: Sequence[Path],
    sources: Sequence[Source | Unwalkable],
    prune: bool,
) -> dict[str, Any]:
    from retrieval.commit import Committed
    from retrieval.ingest import Skipped, Summary, Unchanged

    summary, done = Summary(), 0
    with closing(_events(parts, into, sources)) as events:
        for event in events:
            summary.add(event)
            if isinstance(event, Committed | Skipped | Unchanged):
                done += 1
            attempt.progress(done / max(1, len(sources)), f"{done} of {len(sources)} files")
    if prune:
        for gone in _prune(parts, into, paths, sources=sources):
            attempt.check()
            summary.add(gone)
    for skipped in summary.skipped[:SHOWN_SKIPPED]:
        attempt.log(f"{skipped.uri}: {skipped.message}", level="warning")
    counts = asdict(summary)
    return {**counts, "skipped": len(summary.skipped), "warnings": len(summary.warnings)}


def _events(
    parts: Components, into: Collection, sources: Sequence[Source | Unwalkable]
) -> Generator[Event, None, None]:
    yield from parts.ingester.ingest(into, sources)


def _prune(
    parts: Components,
    into: Collection,
    paths: Sequence[Path],
    *,
    sources: Sequence[Source | Unwalkable],
) -> Iterator[Event]:
    from urllib.parse import unquote, urlsplit

    from retrieval.sources import Unwalkable

    refused = [unquote(urlsplit(each.uri).path) for each in sources if isinstance(each, Unwalkable)]
    if any(Path(path).is_dir() for path in refused):
        return  # what lies below is not known to be gone
    folders = [path for path in paths if path.is_dir()]
    yield from parts.ingester.prune(into, folders, {source.uri for source in sources})

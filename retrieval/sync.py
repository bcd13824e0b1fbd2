"""Keeps a collection in step with a source: list -> compare -> fetch what changed -> remove."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.contracts import Readers
from infra.errors import (
    Conflict,
    FetchFailed,
    FetchRefused,
    SourceFailed,
    StorageFailed,
    UnreadableDocument,
)
from infra.scratch import scratch_folder
from infra.settings import Sources as Limits
from retrieval.collections import Collection
from retrieval.commit import Committed
from retrieval.documents import check_metadata
from retrieval.embedding import Embedded
from retrieval.files import Files
from retrieval.ingest import Event, Ingester, Removed, Skipped, Unchanged
from retrieval.sources import (
    MAX_URI_CHARACTERS,
    Fetched,
    Item,
    ItemGone,
    Origin,
    Source,
    Unwalkable,
)
from retrieval.synced import Known, Synced

MARK_ITEMS = 64
MARK_SECONDS = 1.0
"""Versions are noted together; what a crash forgets is looked at again, and not embedded."""
MAX_FAILURES = 5
"""Items in a row that could not be reached, after which the source itself is taken to be down."""
_NOT_MODIFIED = "not_modified"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a sync will do, from a complete listing."""

    new: tuple[Item, ...]
    changed: tuple[Item, ...]
    """Items of another version than the collection holds, or whose version only fetching tells."""
    unchanged: int
    gone: tuple[str, ...]
    """URIs that the collection holds and the source lists no more."""
    refused: tuple[Unwalkable, ...]
    held: int
    """Documents of this source in the collection."""
    withheld: str | None = None
    """Why nothing is removed, if it is not."""
    known: Mapping[str, Known] = field(default_factory=dict, repr=False)

    @property
    def to_fetch(self) -> tuple[Item, ...]:
        return self.new + self.changed


class Syncer:
    """Brings collections in step; several at once, also of one source, end in the same state."""

    def __init__(self, ingester: Ingester, files: Files, *, scratch: Path, limits: Limits) -> None:
        self._ingester = ingester
        self._files = files
        self._scratch = scratch
        self._limits = limits

    def plan(
        self,
        known: Mapping[str, Known],
        origin: Origin,
        *,
        metadata: Mapping[str, Any] | None = None,
        readers: Readers | None = None,
        on_listed: Callable[[int], object] = lambda _: None,
    ) -> Plan:
        """List the source and compare it with what the collection holds; nothing is changed.

        Args:
            known: what the source brought in so far, as `Synced.known` tells.
            origin: the source.
            metadata: given to every document.
            readers: who may read every document; None leaves that as it is.
            on_listed: called with the number of items now and then; may raise to stop.

        Raises:
            SourceFailed: the source cannot be listed to its end, or lists too much.
            InvalidRequest: the metadata are not flat.
        """
        check_metadata(metadata or {})
        seen: set[str] = set()
        comparison = _Comparison(known, given=_digest(metadata, readers))
        for listed in origin.list():
            if listed.uri in seen:
                continue
            seen.add(listed.uri)
            on_listed(len(seen))
            if len(seen) > self._limits.max_items:
                raise SourceFailed(
                    f"It lists more than {self._limits.max_items:,} documents;"
                    " narrow it, or raise sources.max_items"
                )
            comparison.add(listed)
        return comparison.finish(seen)

    def run(
        self,
        into: Collection,
        origin: Origin,
        synced: Synced,
        plan: Plan,
        *,
        options: Options,
    ) -> Iterator[Event]:
        """Carry a plan out, yielding what happened as it happens.

        Documents are removed last, and only if every step before succeeded.

        Raises:
            Conflict: more would be removed than `sources.max_delete_share` allows.
            SourceFailed: the source ceased to answer; what was committed stays.
        """
        self._guard(plan, plan.gone, options)
        yield from (Skipped(each.uri, each.code, each.reason) for each in plan.refused)
        synced.claim(item.uri for item in plan.new)
        gone = [] if plan.withheld else list(plan.gone)
        with scratch_folder(self._scratch) as folder:
            fetching = _Fetching(origin, plan, folder, options)
            marks = _Marks(synced, fetching.tokens)
            with closing(self._ingest(into, fetching)) as events:
                try:
                    for event in events:
                        if isinstance(event, Skipped) and event.code == ItemGone.code:
                            gone.append(event.uri)
                            continue
                        marks.settle(event)
                        yield event
                finally:
                    marks.flush()
            if fetching.failure is not None:
                raise fetching.failure
        self._guard(plan, gone, options)
        for uri in gone:
            if synced.remove(uri):
                yield Removed(uri)
        self._files.sweep()

    def _ingest(self, into: Collection, fetching: _Fetching) -> Generator[Event, None, None]:
        for event in self._ingester.ingest(into, fetching.sources()):
            if isinstance(event, Skipped) and event.code == _NOT_MODIFIED:
                yield Unchanged(event.uri)
            else:
                yield event
            if not isinstance(event, Embedded):
                fetching.release(event.uri)

    def _guard(self, plan: Plan, gone: Sequence[str], options: Options) -> None:
        count = sum(uri in plan.known and plan.known[uri].is_held for uri in gone)
        allowed = max(1, int(plan.held * self._limits.max_delete_share))
        if plan.withheld or options.allow_deletes or count <= allowed:
            return
        raise Conflict(
            f"{count} of {plan.held} documents would be removed, more than"
            f" sources.max_delete_share ({self._limits.max_delete_share:g}) allows; see that the"
            " source is complete, then run it with --allow-deletes"
        )


@dataclass(frozen=True, slots=True)
class Options:
    """How a plan is carried out."""

    metadata: Mapping[str, Any] = field(default_factory=dict)
    """Given to every document."""
    readers: Readers | None = None
    """Who may read every document; None leaves that as it is."""
    allow_deletes: bool = False
    """Remove whatever is gone, however much it is."""


class _Comparison:
    def __init__(self, known: Mapping[str, Known], *, given: str) -> None:
        self._known = known
        self._given = given
        self._new: list[Item] = []
        self._changed: list[Item] = []
        self._refused: list[Unwalkable] = []
        self._unchanged = 0

    def add(self, listed: Item | Unwalkable) -> None:
        if isinstance(listed, Unwalkable):
            self._refused.append(listed)
        elif len(listed.uri) > MAX_URI_CHARACTERS:
            self._refused.append(
                Unwalkable(listed.uri, f"its name has more than {MAX_URI_CHARACTERS} characters")
            )
        elif (known := self._known.get(listed.uri)) is None or not known.is_held:
            self._new.append(listed)
        elif listed.version is not None and known.token == _token(listed.version, self._given):
            self._unchanged += 1
        else:
            self._changed.append(listed)

    def finish(self, seen: set[str]) -> Plan:
        hiding = next((each for each in self._refused if each.hides), None)
        return Plan(
            new=tuple(self._new),
            changed=tuple(self._changed),
            unchanged=self._unchanged,
            gone=tuple(uri for uri in self._known if uri not in seen),
            refused=tuple(self._refused),
            held=sum(known.is_held for known in self._known.values()),
            withheld=f"{hiding.uri} cannot be listed: {hiding.reason}" if hiding else None,
            known=self._known,
        )


class _Fetching:
    """Fetches items one after the other, ahead of the ingest that reads them."""

    def __init__(self, origin: Origin, plan: Plan, scratch: Path, options: Options) -> None:
        self.tokens: dict[str, str | None] = {}
        """What was fetched, by URI, until it is settled."""
        self.failure: SourceFailed | None = None
        """Why it ended before its time."""
        self._origin = origin
        self._plan = plan
        self._scratch = scratch
        self._given = options.metadata
        self._readers = options.readers
        self._digest = _digest(options.metadata, options.readers)
        self._folders: dict[str, Path] = {}
        self._failures = 0

    def sources(self) -> Iterator[Source | Unwalkable]:
        for number, item in enumerate(self._plan.to_fetch):
            folder = self._scratch / str(number)
            folder.mkdir()
            self._folders[item.uri] = folder
            try:
                yield self._fetch(item, folder)
            except SourceFailed as failure:
                # Not raised here: what was fetched before is still to be committed.
                self.failure = failure
                return

    def release(self, uri: str) -> None:
        """Remove what was fetched for an item that is settled."""
        if (folder := self._folders.pop(uri, None)) is not None:
            shutil.rmtree(folder, ignore_errors=True)

    def _fetch(self, item: Item, folder: Path) -> Source | Unwalkable:
        try:
            fetched = self._origin.fetch(item, folder, known=self._known_version(item))
        except FetchFailed as error:
            self._count_failure(error)
            return Unwalkable(item.uri, error.message, code=_code(error))
        except UnreadableDocument as error:
            self._failures = 0
            return Unwalkable(item.uri, error.message, code=error.code)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StorageFailed(f"Cannot fetch {item.uri!r}: {error.strerror}") from error
            return Unwalkable(item.uri, error.strerror or str(error))
        self._failures = 0
        if not isinstance(fetched, Fetched):
            return Unwalkable(item.uri, "", code=_NOT_MODIFIED)
        if fetched.version is not None:
            self.tokens[item.uri] = _token(fetched.version, self._digest)
        else:
            self.tokens[item.uri] = None
        return Source(
            uri=item.uri,
            path=fetched.path,
            filename=fetched.filename or item.filename,
            metadata={**item.metadata, **fetched.metadata, **self._given},
            readers=self._readers,
        )

    def _known_version(self, item: Item) -> str | None:
        known = self._plan.known.get(item.uri)
        if known is None or known.token is None:
            return None
        given, _, version = known.token.partition("|")
        return version if given == self._digest else None

    def _count_failure(self, error: FetchFailed) -> None:
        if error.status is not None or isinstance(error, FetchRefused):
            self._failures = 0
            return
        self._failures += 1
        if self._failures >= MAX_FAILURES:
            raise SourceFailed(
                f"{self._failures} items in a row could not be fetched, the last because:"
                f" {error.message}"
            ) from error


class _Marks:
    """Notes the versions of what was committed, several together."""

    def __init__(self, synced: Synced, tokens: dict[str, str | None]) -> None:
        self._synced = synced
        self._tokens = tokens
        self._waiting: dict[str, str | None] = {}
        self._flushed_at = time.monotonic()

    def settle(self, event: Event) -> None:
        if isinstance(event, Committed | Unchanged) and event.uri in self._tokens:
            self._waiting[event.uri] = self._tokens.pop(event.uri)
        late = time.monotonic() - self._flushed_at > MARK_SECONDS
        if len(self._waiting) >= MARK_ITEMS or late:
            self.flush()

    def flush(self) -> None:
        self._synced.mark(self._waiting)
        self._waiting.clear()
        self._flushed_at = time.monotonic()


def _token(version: str, given: str) -> str:
    return f"{given}|{version}"


def _digest(metadata: Mapping[str, Any] | None, readers: Readers | None) -> str:
    """What is given to every document is part of its version."""
    given: Any = dict(metadata or {})
    if readers is not None:
        given = [given, readers.tenant, sorted(readers.allow)]
    if not given:
        return ""
    return hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()[:16]


def _code(error: FetchFailed) -> str:
    if isinstance(error, FetchRefused):
        return "refused"
    return "unreachable" if error.status is None else f"http_{error.status}"

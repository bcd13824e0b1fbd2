"""Compaction: index files and database are written anew, so that nothing deleted is in their bytes.

finish erasures -> sweep bytes -> every build's index anew -> quotes again -> database -> receipts
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from infra.database.compaction import WAIT_SECONDS
from infra.database.compaction import compact as compact_database
from infra.database.engine import Database
from retrieval.build_state import Build
from retrieval.builds import Builds
from retrieval.collections import Collection
from retrieval.erasure import Erasure
from retrieval.files import Files
from retrieval.view import Views


@dataclass(frozen=True, slots=True)
class Compacted:
    """What a compaction did."""

    collection: str
    """Public id."""
    builds: tuple[int, ...]
    """Whose index was written anew."""
    finished: int
    """Erasures that a crash had cut short."""
    files: int
    """Files whose bytes were removed."""
    strays: int
    """Folders of indexes that nothing uses."""
    receipts: tuple[str, ...]
    """Of the erasures that it completes."""
    left: tuple[str, ...]
    """What could not be done, in words."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Compactor:
    """Compacts collections one at a time; searches and writes go on meanwhile."""

    def __init__(
        self,
        database: Database,
        *,
        views: Views,
        builds: Builds,
        files: Files,
        erasure: Erasure,
        on_step: Callable[[str], object] = lambda _: None,
    ) -> None:
        self._database = database
        self._views = views
        self._builds = builds
        self._files = files
        self._erasure = erasure
        self._on_step = on_step

    def compact(self, whole: Collection, *, wait_seconds: float = WAIT_SECONDS) -> Compacted:
        """Write everything of a collection anew, without what was deleted until now.

        Done again, it finishes what was interrupted.

        Raises:
            Conflict: another machine is at it.
            StorageFailed: the disk is full, or the database is locked by another writer; the index
                and the database stay as they were.
        """
        finished = self._erasure.finish(collection=whole.public_id)
        # What is deleted from here on is for the next compaction.
        receipts = self._erasure.receipts.in_state("removed", collection=whole.public_id)
        self._on_step("finished")
        files = self._files.sweep()
        self._builds.sweep(whole)
        self._on_step("swept")
        builds = [each for each in self._builds.list(whole) if _has_index(each)]
        for each in builds:
            self._views.get(each.of(whole)).compact()
            self._on_step("index")
        strays = self._views.remove_strays()
        self._on_step("strays")
        self._erasure.erase_quotes(receipts)
        self._on_step("quotes again")
        left = compact_database(self._database, wait_seconds=wait_seconds)
        self._on_step("database")
        done = Compacted(
            collection=whole.public_id,
            builds=tuple(each.id for each in builds),
            finished=finished,
            files=files,
            strays=strays,
            receipts=tuple(each.id for each in receipts),
            left=tuple(left),
        )
        self._note(receipts_of(done), done)
        self._on_step("compacted")
        return done

    def _note(self, receipt_ids: Sequence[str], done: Compacted) -> None:
        said = {name: value for name, value in done.as_dict().items() if name != "receipts"}
        self._erasure.receipts.note_compacted(receipt_ids, said)


def receipts_of(done: Compacted) -> Sequence[str]:
    """Return the receipts that may say so: all, unless a file could not be emptied."""
    return () if any("write-ahead" in each for each in done.left) else done.receipts


def _has_index(build: Build) -> bool:
    return build.state in ("building", "live", "standby")

"""Keeps the views of all collections open, close behind the database, and checkpointed."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from sqlalchemy import func, select

from infra.database.engine import Database
from infra.database.schema import build, change, erasure
from infra.errors import RagstoneError, StorageFailed
from retrieval.build_state import FOLLOWED, all_followed
from retrieval.collections import Collection, Collections
from retrieval.view import Views

logger = logging.getLogger(__name__)

INTERVAL_SECONDS = 0.25
EVERYTHING_SECONDS = 5.0
"""Between passes over every collection even if nothing seems to have changed: of two writers, the
one with the smaller sequence may commit last, and then the largest sequence does not tell."""


class Follower:
    """One thread that follows the change log, so that no question has to."""

    def __init__(
        self,
        database: Database,
        collections: Collections,
        views: Views,
        *,
        warm: Callable[[Collection], object] = lambda _: None,
        on_followed: Callable[[], object] = lambda: None,
    ) -> None:
        """Take what to follow.

        Args:
            database: that all processes share.
            collections: which views there are to be.
            views: are kept open and up to date.
            warm: opens what else a build needs to answer, before it is swapped in.
            on_followed: told after each pass: what any process has removed before, no view here
                finds any more.
        """
        self._warm = warm
        self._on_followed = on_followed
        self._warmed: set[int] = set()
        self._database = database
        self._collections = collections
        self._views = views
        self._known: dict[int, Collection] = {}
        self._seen: tuple[int, ...] | None = None
        self._looked_at = float("-inf")
        self._opened = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="follow", daemon=True)
        self._saving: threading.Thread | None = None

    @property
    def has_opened_all(self) -> bool:
        """True once every collection's view has been opened and brought up to date."""
        return self._opened.is_set()

    def start(self) -> None:
        self._thread.start()

    def stop(self, *, timeout_seconds: float = 30.0) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout_seconds)

    def follow(self) -> None:
        """Bring every view up to date if anything was written since the last time."""
        state = self._state()
        is_due = time.monotonic() - self._looked_at >= EVERYTHING_SECONDS
        if state == self._seen and not is_due:
            return
        found = {item.build_id: item for item in self._all()}
        for gone in self._known.keys() - found.keys():
            self._views.forget(self._known[gone])
        self._known = found
        for item in found.values():
            if self._stopping.is_set():
                return
            self._bring_up_to_date(item)
        self._checkpoint()
        self._seen, self._looked_at = state, time.monotonic()
        self._opened.set()
        self._on_followed()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.follow()
            except StorageFailed as error:
                logger.warning("following waits for the database: %s", error)
                self._stopping.wait(EVERYTHING_SECONDS)
            except Exception:  # whatever it is: without this thread no view would be brought on
                logger.exception("following failed and is tried again")
                self._stopping.wait(EVERYTHING_SECONDS)
            self._stopping.wait(INTERVAL_SECONDS)

    def _checkpoint(self) -> None:
        """Save in a thread of its own: a large index is built for minutes, the others go on."""
        if self._saving is None or not self._saving.is_alive():
            self._saving = threading.Thread(
                target=self._views.checkpoint, name="checkpoint", daemon=True
            )
            self._saving.start()

    def _bring_up_to_date(self, item: Collection) -> None:
        try:
            view = self._views.get(item)
            view.renew()
            view.refresh()
            if item.build_id not in self._warmed:
                self._warmed.add(item.build_id)
                self._warm(item)
        except (RagstoneError, OSError, RuntimeError, ValueError) as error:
            # One broken index must not keep the others behind; its searches report it themselves.
            logger.error("the view of %r cannot follow: %s", item.name, error)

    def _state(self) -> tuple[int, ...]:
        with self._database.read() as connection:
            sequence = connection.execute(select(func.max(change.c.sequence))).scalar()
            erased = connection.execute(select(func.max(erasure.c.number))).scalar()
            others = connection.execute(
                select(func.count(), func.max(build.c.id), func.sum(build.c.compactions))
                .select_from(build)
                .where(build.c.state.in_(FOLLOWED))
            ).one()
        return int(sequence or 0), int(erased or 0), *(int(each or 0) for each in others)

    def _all(self) -> list[Collection]:
        """Return every collection once for each build that is kept in step.

        The view of a build that may answer next is open and up to date before it does, whichever
        process swaps it in.
        """
        with self._database.read() as connection:
            builds = all_followed(connection)
        known = {item.id: item for item in self._live()}
        return [each.of(known[number]) for number, each in builds if number in known]

    def _live(self) -> list[Collection]:
        everything: list[Collection] = []
        while True:
            after = everything[-1].public_id if everything else None
            page = self._collections.list(limit=1000, after=after, descending=False)
            everything += page.items
            if not page.has_more:
                return everything

"""The one thread that takes money matters to the database, beside the requests."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from infra.database.engine import Database
from infra.errors import StorageFailed
from infra.security import new_id
from service.gateway import heirs, spans, usage
from service.gateway.accounts import Request
from service.gateway.budgets import Book, Budgets
from service.gateway.escrow import Escrow, News, Superseded
from service.gateway.journal import Journal
from service.gateway.ledger import Ledger

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.2
"""How soon others get what is free here, and a change of a budget is seen."""
REPORT_SECONDS = 1.0
"""Between reports while nobody waits: each is a transaction that reaches the disk."""
GAP_SECONDS = 0.05
"""Between two transactions while calls wait for money."""
PAUSE_SECONDS = 0.5
"""After a failure of the database or the disk."""
BEAT_SECONDS = 2.0
LEASE_SECONDS = 15.0
"""A process that shows no beat for so long is not waited for; what it holds counts as spent."""
PRUNE_SECONDS = 3600.0
SWEEP_SECONDS = 30.0
"""Between looks for accounts of days that are over."""


class Clerk:
    """Borrows ahead, reports, gives back what others want, takes over from the dead."""

    def __init__(
        self,
        database: Database,
        folder: Path,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self._database = database
        self._folder = folder
        self._clock = clock
        self._monotonic = monotonic
        self._poll_seconds = poll_seconds
        self._budgets = Budgets(database, clock=clock)
        self.book = Book(-1, {})
        """The budgets there are; replaced whole when one changes."""
        self._escrow = Escrow(database, new_id("spender_"))
        self._journal = Journal(folder, self._escrow.spender_id)
        self.ledger = Ledger(self._journal, monotonic=monotonic)
        self.failure: StorageFailed | None = None
        """Why the database does not answer, while it does not."""
        self._unknown: Request | None = None
        self._beats: dict[str, tuple[int, float]] = {}
        self._reported_at = self._pruned_at = self._swept_at = float("-inf")
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="money", daemon=True)

    def start(self) -> None:
        """Register and go to work in a thread.

        Raises:
            StorageFailed: the database cannot be reached.
        """
        self.register()
        self._thread.start()

    def register(self) -> None:
        """Enter this process among those that spend, and take over from the dead."""
        self._escrow.register()
        try:
            heirs.inherit(self._database, self._folder, own=self._escrow.spender_id)
        except StorageFailed as error:  # each round tries again
            logger.warning("%s", error)
        self.book = self._budgets.book()

    def stop(self) -> None:
        """Report everything and give back what is left; calls under way count as cut off."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self.ledger.wake.set()
        if self._thread.is_alive():
            self._thread.join()
        self._journal.close()
        try:
            heirs.settle(self._database, self._folder, self._escrow.spender_id)
        except (StorageFailed, Superseded, OSError) as error:
            logger.warning("what was borrowed is settled at the next start: %s", error)

    def turn(self) -> None:
        """Do what is due: one round of the thread.

        Raises:
            StorageFailed: the database or the disk does not take it; the next turn tries again.
        """
        now = self._monotonic()
        news = self._escrow.look()
        if news.budgets != self.book.revision:
            self.book = self._budgets.book()
        is_due = now - self._reported_at >= REPORT_SECONDS
        is_sweeping = now - self._swept_at >= SWEEP_SECONDS
        has_business = self.ledger.has_news or is_sweeping
        if news.recalled or self.ledger.waiting or (is_due and has_business):
            self._exchange(news, is_sweeping=is_sweeping)
            self._reported_at = now
            self._swept_at = now if is_sweeping else self._swept_at
        elif now - self._reported_at >= BEAT_SECONDS:
            self._escrow.beat()
            self._reported_at = now
        if is_due:
            self.ledger.sync()
        if now - self._pruned_at >= PRUNE_SECONDS:
            self._pruned_at = now
            usage.prune(self._database)
            self._budgets.prune()
            heirs.write_off(self._database)
        if is_due:
            heirs.inherit(self._database, self._folder, own=self._escrow.spender_id)

    def _exchange(self, news: News, *, is_sweeping: bool) -> None:
        if self._unknown is not None:
            self._resolve(self._unknown)
        living = self._living(news.beats)
        current = spans.spans(self._clock())
        self._unknown = request = self.ledger.prepare(
            recalled=news.recalled,
            is_over=lambda each: is_sweeping and self.book.is_over(each, current),
        )
        self.ledger.accept(request, self._escrow.exchange(request, living=living))
        self._unknown = None

    def _resolve(self, request: Request) -> None:
        """Find out whether a transaction that broke off had happened."""
        has_happened, granted = self._escrow.resolve(request)
        self.ledger.resolve(request, granted, has_happened=has_happened)
        self._unknown = None

    def _living(self, beats: Mapping[str, int]) -> set[str]:
        """Return the processes whose beat has moved of late, by this process's own clock."""
        now = self._monotonic()
        before, self._beats = self._beats, {}
        for spender_id, beat in beats.items():
            known, since = before.get(spender_id, (beat, now))
            self._beats[spender_id] = (beat, since if known == beat else now)
        return {each for each, (_, since) in self._beats.items() if now - since < LEASE_SECONDS}

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self.ledger.wake.wait(self._poll_seconds)
                self.ledger.wake.clear()
                self._turn_or_wait()
                self._stopping.wait(GAP_SECONDS)
        except Superseded as error:
            logger.error("%s", error)
        finally:
            if not self._stopping.is_set():
                self.failure = StorageFailed("Budgets are kept no more; start the service again")
                self.ledger.forfeit()

    def _turn_or_wait(self) -> None:
        try:
            self.turn()
        except StorageFailed as error:
            self.failure = error
            logger.warning("budgets wait: %s", error)
        except OSError as error:
            self.failure = StorageFailed(f"The disk does not take what was spent: {error}")
            logger.warning("budgets wait: %s", error)
        except SQLAlchemyError as error:
            self.failure = StorageFailed("The database does not take what was spent; see the log")
            logger.exception("budgets wait: %s", error)
        else:
            self.failure = None
            return
        self._stopping.wait(PAUSE_SECONDS)

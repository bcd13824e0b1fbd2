"""All keys in memory: a request asks no database, a change is seen within a second."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import bindparam, select, update
from sqlalchemy.exc import SQLAlchemyError

from infra.database.engine import Database
from infra.database.money import revision
from infra.database.schema import api_key
from infra.errors import StorageFailed, Unauthenticated
from service.callers import Caller
from service.keys import COLUMNS, caller_of

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
LOOK_UP_GAP_SECONDS = 0.1
"""Between two looks at the database for keys that are not known, however many ask."""
LOOK_UP_SECONDS = 5.0
MAX_LOOKED_UP = 256
"""Requests that may wait for a look-up; the others are refused at once."""
USE_NOTED_SECONDS = 30.0
"""`last_used_at` is for people who tidy up: written in batches, beside the requests."""
MAX_KEY_CHARACTERS = 256
FOREVER = float("inf")
BATCH = 1000


class Keyring:
    """Tells who comes with a key.

    One thread watches a counter in the database and reads what changed. A key that is not known
    waits for that thread's next look, so that a new key opens at once; looks are few however many
    wrong keys come.
    """

    def __init__(
        self,
        database: Database,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self._database = database
        self._clock = clock
        self._poll_seconds = poll_seconds
        self._callers: dict[bytes, tuple[Caller, float]] = {}
        self._digests: dict[str, tuple[bytes, ...]] = {}
        self._seen = -1
        self._used: dict[str, datetime] = {}
        self._lock = threading.Lock()
        self._refreshing = threading.Lock()
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keyring", daemon=True)
        self.looks = 0
        """How often the database was asked."""

    def __len__(self) -> int:
        return len(self._digests)

    def start(self) -> None:
        """Read all keys, then follow their changes in a thread.

        Raises:
            StorageFailed: the database cannot be reached.
        """
        self.refresh()
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
        try:
            self._note_uses()
        except StorageFailed as error:
            logger.warning("when keys were last used is not noted: %s", error)

    def find(self, text: str) -> Caller | None:
        """Return who comes with a key, from memory; None if it does not open, for any reason.

        Keys are found by their hash: how long it takes tells nothing of the keys there are.
        """
        if len(text) > MAX_KEY_CHARACTERS:
            return None
        found = self._callers.get(hashlib.sha256(text.encode("utf-8", "replace")).digest())
        if found is None:
            return None
        caller, valid_until = found
        now = self._clock()
        if now.timestamp() >= valid_until:
            return None
        if caller.key_id is not None:
            self._used[caller.key_id] = now
        return caller

    async def check(self, text: str) -> Caller:
        """Return who comes with a key; one that is not known is looked up once.

        Raises:
            Unauthenticated: it is unknown, revoked or expired; which of them is not said.
            StorageFailed: it is not known here, and the database cannot be asked.
        """
        caller = self.find(text)
        if caller is None and len(text) <= MAX_KEY_CHARACTERS:
            await self._look_up()
            caller = self.find(text)
        if caller is None:
            raise Unauthenticated("Incorrect API key; create one with `ragstone keys create NAME`")
        return caller

    def refresh(self) -> None:
        """Read the keys that changed since the last time, if any did."""
        with self._refreshing:
            self._refresh()

    def _refresh(self) -> None:
        self.looks += 1
        with self._database.read() as connection:
            number = connection.execute(
                select(revision.c.number).where(revision.c.name == "keys")
            ).scalar_one()
            if number == self._seen:
                return
            rows = connection.execution_options(yield_per=BATCH).execute(
                select(
                    *COLUMNS,
                    api_key.c.fingerprint,
                    api_key.c.previous_fingerprint,
                    api_key.c.previous_until,
                ).where(api_key.c.revision > self._seen)
            )
            for row in rows:
                self._take(row)
        self._seen = number

    def _take(self, row: Any) -> None:
        until = FOREVER if row.expires_at is None else row.expires_at.timestamp()
        opens: dict[bytes, tuple[Caller, float]] = {}
        if row.revoked_at is None:
            caller = caller_of(row)
            if row.previous_fingerprint:
                before = min(until, row.previous_until.timestamp())
                opens[bytes.fromhex(row.previous_fingerprint)] = (caller, before)
            opens[bytes.fromhex(row.fingerprint)] = (caller, until)
        for gone in self._digests.pop(row.id, ()):
            if gone not in opens:
                self._callers.pop(gone, None)
        self._callers.update(opens)
        if opens:
            self._digests[row.id] = tuple(opens)

    async def _look_up(self) -> None:
        loop = asyncio.get_running_loop()
        seen = loop.create_future()
        with self._lock:
            if len(self._waiting) >= MAX_LOOKED_UP or self._stopping.is_set():
                return
            self._waiting.append((loop, seen))
        self._wake.set()
        try:
            async with asyncio.timeout(LOOK_UP_SECONDS):
                await seen
        except TimeoutError:
            raise StorageFailed("The database does not say whether the key is known") from None

    def _run(self) -> None:
        noted_at = self._clock()
        while not self._stopping.is_set():
            self._wake.wait(self._poll_seconds)
            self._wake.clear()
            with self._lock:
                waiting, self._waiting = self._waiting, []
            failure: StorageFailed | None = None
            try:
                self.refresh()
                if abs((self._clock() - noted_at).total_seconds()) >= USE_NOTED_SECONDS:
                    noted_at = self._clock()
                    self._note_uses()
            except (StorageFailed, SQLAlchemyError) as error:
                logger.warning("keys are as they were known before: %s", error)
                failure = StorageFailed("The database does not say whether the key is known")
            for loop, seen in waiting:
                _tell(loop, seen, failure)
            self._stopping.wait(LOOK_UP_GAP_SECONDS)

    def _note_uses(self) -> None:
        used, self._used = self._used, {}
        rows = [{"key": key, "at": at} for key, at in used.items()]
        statement = (
            update(api_key)
            .where(api_key.c.id == bindparam("key"))
            .values(last_used_at=bindparam("at"))
        )
        for start in range(0, len(rows), BATCH):
            with self._database.write(durable=False) as connection:
                connection.execute(statement, rows[start : start + BATCH])


def _tell(
    loop: asyncio.AbstractEventLoop, seen: asyncio.Future[None], failure: Exception | None
) -> None:
    def tell() -> None:
        if not seen.done():
            seen.set_exception(failure) if failure else seen.set_result(None)

    try:
        loop.call_soon_threadsafe(tell)
    except RuntimeError:  # the loop is closed, and whoever waited with it
        logger.debug("nobody waits for the look-up any more")

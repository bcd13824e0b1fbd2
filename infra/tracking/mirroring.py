"""Keeps the mirrors up with the database, apart from the runs, and catches up what they missed."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, and_, insert, or_, select, update

from infra.errors import RagstoneError, StorageFailed
from infra.security import new_id
from infra.tracking.changes import Position, read_changes
from infra.tracking.limits import cut, storable
from infra.tracking.mirrors import Mirror
from infra.tracking.redaction import hide
from infra.tracking.runs import Runs
from infra.tracking.tables import run_mirror
from infra.tracking.writing import database_now

logger = logging.getLogger(__name__)

EVERY_SECONDS = 2.0
SETTLE_SECONDS = 10.0
"""How long the end of a run waits for a mirror that answers; for one that does not, not at all."""
CLOSE_SECONDS = 1.0
HOLD = timedelta(seconds=120)
RETRY = timedelta(seconds=30)
AT_ONCE = 50
"""Runs of other processes, those that left a mirror behind, looked at in one round."""


class Mirroring:
    """Copies runs from the database to the mirrors, in a thread while this process has runs.

    Of each run and mirror the database knows how far the copy has come and who feeds it, so that
    whatever one process leaves behind, the next one with the same mirror catches up.
    """

    def __init__(self, runs: Runs, mirrors: Mapping[str, Mirror]) -> None:
        self.holder = new_id("mirroring-")
        self.mirrors = mirrors
        self._runs = runs
        self._database = runs.database
        self._followed: set[str] = set()
        self._failing: set[str] = set()
        self._unsettled: set[tuple[str, str]] = set()
        self._changed = threading.Condition()
        self._wanted = threading.Event()
        self._thread: threading.Thread | None = None

    def follow(self, run_id: str) -> None:
        """Copy a run of this process while it goes on."""
        if not self.mirrors:
            return
        with self._changed:
            self._followed.add(run_id)
            self._unsettled |= {(run_id, name) for name in self.mirrors}
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._work, name="mirrors", daemon=True)
                self._thread.start()

    def settle(self, run_id: str) -> None:
        """Give the mirrors that answer a moment to copy the end of a run."""
        deadline = time.monotonic() + SETTLE_SECONDS
        self._wanted.set()
        with self._changed:
            while self._is_coming(run_id) and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)
            self._followed.discard(run_id)
            self._unsettled = {each for each in self._unsettled if each[0] != run_id}
        self._wanted.set()

    def catch_up(self) -> int:
        """Copy now whatever no living process copies; returns how many copies still lag.

        Every one is tried once, also those that failed a moment ago.
        """
        for name in self.mirrors:
            tried: set[str] = set()
            while waiting := set(self._pending(name, again=True)) - tried:
                tried |= waiting
                for run_id in sorted(waiting):
                    self._try(run_id, name)
        with self._database.read() as connection:
            query = select(run_mirror.c.run_id).where(
                run_mirror.c.state == "pending",
                run_mirror.c.mirror.in_(list(self.mirrors)),
                run_mirror.c.error.is_not(None),
            )
            return len(connection.scalars(query).all())

    def close(self) -> None:
        """Stop copying; what is left is caught up later."""
        with self._changed:
            self._followed.clear()
            self._unsettled.clear()
            thread = self._thread
        self._wanted.set()
        if thread is not None:
            thread.join(CLOSE_SECONDS)

    def _work(self) -> None:
        while self._is_wanted():
            for name in self.mirrors:
                with suppress(StorageFailed):  # the database is away; the runs' own thread says so
                    self._go_round(name)
            self._wanted.wait(EVERY_SECONDS)
            self._wanted.clear()

    def _go_round(self, name: str) -> None:
        for run_id in self._pending(name):
            if not self._followed or not self._try(run_id, name):
                return  # what does not answer now is left alone until the next round

    def _is_wanted(self) -> bool:
        with self._changed:
            if not self._followed:
                self._thread = None  # the next run starts another
            return bool(self._followed)

    def _is_coming(self, run_id: str) -> bool:
        return any(run == run_id and name not in self._failing for run, name in self._unsettled)

    def _try(self, run_id: str, name: str) -> bool:
        """Bring one copy up to date; `False` if the mirror, or the database, does not answer."""
        try:
            is_done = self._copy(run_id, name)
        except RagstoneError as error:
            self._note(run_id, name, error)
            return False
        with self._changed:
            self._failing.discard(name)
            if is_done:
                self._unsettled.discard((run_id, name))
            self._changed.notify_all()
        return True

    def _note(self, run_id: str, name: str, error: RagstoneError) -> None:
        if name not in self._failing:
            logger.warning("mirror %s lags: %s", name, error.message)
        try:
            with self._database.write() as connection:
                again = database_now(connection, self._database) + RETRY
                text = cut(storable(hide(error.message)))
                self._save(connection, run_id, name, holder=None, held_until=again, error=text)
        except RagstoneError as failure:
            logger.warning("that mirror %s lags could not be noted: %s", name, failure.message)
        with self._changed:
            self._failing.add(name)
            self._changed.notify_all()

    def _copy(self, run_id: str, name: str) -> bool:
        """Hand a run's news to a mirror; returns whether the copy is complete."""
        held = self._hold(run_id, name)
        if held is None:
            return True  # another process has it
        mirror = self.mirrors[name]
        record = self._runs.get(run_id)  # before its points: if it is over, none come after
        remote_id = mirror.open(record, held.remote_id)
        position = Position(held.flush, held.partial)
        if remote_id != held.remote_id:  # a copy that is new lacks everything
            position = Position()
            self._advance(run_id, name, remote_id=remote_id, position=position)
        while True:
            with self._database.read() as connection:
                changes = read_changes(connection, run_id, position)
            if changes is None:
                break
            mirror.write(remote_id, changes.points)
            position = changes.position
            self._advance(run_id, name, remote_id=remote_id, position=position)
        if record.is_over:
            mirror.close(remote_id, record, self._runs.links(run_id))
        left: dict[str, Any] = {"state": "done"} if record.is_over else {}
        if record.is_over or run_id not in self._followed:  # let whoever has the run go on with it
            left |= {"holder": None, "held_until": None}
        with self._database.write() as connection:
            self._save(connection, run_id, name, error=None, **left)
        return record.is_over

    def _pending(self, name: str, *, again: bool = False) -> Sequence[str]:
        """Return the runs whose copy may lag and that are this process's to copy."""
        with self._database.read() as connection:
            now = database_now(connection, self._database)
            is_free = or_(run_mirror.c.held_until.is_(None), run_mirror.c.held_until < now)
            if again:
                is_free = or_(is_free, run_mirror.c.holder.is_(None))
            query = select(run_mirror.c.run_id).where(
                run_mirror.c.mirror == name,
                run_mirror.c.state == "pending",
                or_(run_mirror.c.holder == self.holder, is_free),
            )
            mine_first = (run_mirror.c.holder == self.holder).desc().nulls_last()
            return connection.scalars(
                query.order_by(mine_first, run_mirror.c.held_until).limit(AT_ONCE)
            ).all()

    def _hold(self, run_id: str, name: str) -> Row[Any] | None:
        with self._database.write() as connection:
            now = database_now(connection, self._database)
            is_mine = run_mirror.c.holder == self.holder
            is_free = or_(run_mirror.c.held_until.is_(None), run_mirror.c.held_until < now)
            return connection.execute(
                update(run_mirror)
                .where(
                    run_mirror.c.run_id == run_id,
                    run_mirror.c.mirror == name,
                    run_mirror.c.state == "pending",
                    or_(is_mine, is_free, run_mirror.c.holder.is_(None)),
                )
                .values(holder=self.holder, held_until=now + HOLD)
                .returning(run_mirror.c.remote_id, run_mirror.c.flush, run_mirror.c.partial)
            ).one_or_none()

    def _advance(self, run_id: str, name: str, *, remote_id: str, position: Position) -> None:
        with self._database.write() as connection:
            self._save(
                connection,
                run_id,
                name,
                remote_id=remote_id,
                flush=position.flush,
                partial=dict(position.partial),
                held_until=database_now(connection, self._database) + HOLD,
            )

    def _save(self, connection: Connection, run_id: str, name: str, **values: Any) -> None:
        connection.execute(
            update(run_mirror)
            .where(
                run_mirror.c.run_id == run_id,
                run_mirror.c.mirror == name,
                run_mirror.c.holder == self.holder,
            )
            .values(**values)
        )


def enter(connection: Connection, run_id: str, mirroring: Mirroring, *, now: datetime) -> None:
    """Note that a run is to be mirrored, by this process for now."""
    for name in mirroring.mirrors:
        is_it = and_(run_mirror.c.run_id == run_id, run_mirror.c.mirror == name)
        held = {"state": "pending", "holder": mirroring.holder, "held_until": now + HOLD}
        if not connection.execute(update(run_mirror).where(is_it).values(held)).rowcount:
            connection.execute(
                insert(run_mirror).values(run_id=run_id, mirror=name, flush=0, partial={}, **held)
            )

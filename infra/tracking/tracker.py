"""Starts runs: each in the database at once, with its code and surroundings, mirrored by wish."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, insert, select, update
from sqlalchemy.exc import IntegrityError

from infra.database.engine import Database
from infra.errors import Conflict, NotFound
from infra.jobs.processes import this_process
from infra.security import new_id
from infra.tracking.buffer import CAPACITY
from infra.tracking.environment import Environment, read_environment
from infra.tracking.feed import FLUSH_SECONDS, Feed, Flusher
from infra.tracking.handle import Artifact, Run, Surroundings, check_tags, insert_tags
from infra.tracking.limits import check_kind, check_name, cut, storable
from infra.tracking.mirroring import Mirroring, enter
from infra.tracking.mirrors import Mirror
from infra.tracking.parameters import Parameters, encode, plain
from infra.tracking.redaction import hide_in_command
from infra.tracking.revision import read_revision
from infra.tracking.runs import Runs
from infra.tracking.tables import package_set, run
from infra.tracking.writing import Writer, database_now

NAME_LETTERS = 6


@dataclass(frozen=True, slots=True)
class Recording:
    """How a tracker records."""

    flush_seconds: float = FLUSH_SECONDS
    """How often what was logged is written: what a crash can lose."""
    capacity: int = CAPACITY
    """Points that may wait to be written, of each run."""
    clock: Callable[[], float] = time.time
    """Seconds since 1970, for points."""
    environment: Callable[[], Environment] = read_environment
    """Asked once, at the first run."""


class Tracker:
    """Starts runs and takes them up again; safe to share between threads, not between forks.

    Args:
        database: where runs are kept.
        find: looks up a reference of the artifact store, for `Run.use` and `Run.made`.
        mirrors: by the name under which the database remembers how far each has come.
        recording: how often, how much and by which clock.
    """

    def __init__(
        self,
        database: Database,
        *,
        find: Callable[[str], Artifact] | None = None,
        mirrors: Mapping[str, Mirror] | None = None,
        recording: Recording | None = None,
    ) -> None:
        self.runs = Runs(database)
        self.mirroring = Mirroring(self.runs, mirrors or {})
        self._database = database
        self._recording = recording or Recording()
        self._around = Surroundings(
            database,
            Flusher(every_seconds=self._recording.flush_seconds),
            find=find,
            settle=self.mirroring.settle,
            clock=self._recording.clock,
        )

    def run(
        self,
        kind: str,
        *,
        name: str | None = None,
        parameters: Parameters | None = None,
        tags: Mapping[str, str | int | float | bool] | None = None,
        parent: str | None = None,
    ) -> Run:
        """Start a run; use it as `with tracker.run("sft") as run`.

        Args:
            kind: what it does, such as `sft`, `evaluation` or `sweep`.
            name: need not be unique; by default the kind and some letters.
            parameters: what it was told; nested mappings are compared by dotted names.
            tags: short facts to find it by.
            parent: id of the run it is part of.

        Raises:
            InvalidRequest: the kind, the name, a parameter or a tag is malformed.
            TooLarge: there are too many parameters or tags.
            NotFound: there is no such parent.
            StorageFailed: the database cannot be reached.
        """
        run_id = new_id("run-")
        row = {
            "id": run_id,
            "kind": check_kind(kind),
            "name": check_name(f"{kind}-{run_id[-NAME_LETTERS:]}" if name is None else name),
            "state": "running",
            "parent_id": parent,
            "parameters": encode(plain(parameters or {})),
            **self._circumstances(),
        }
        checked = check_tags(tags or {})
        with self._database.write() as connection:
            if parent is not None and not _exists(connection, parent):
                raise NotFound("run", parent)
            self._enter_packages(connection)
            now = database_now(connection, self._database)
            connection.execute(insert(run).values(started_at=now, seen_at=now, **row))
            insert_tags(connection, run_id, checked)
            enter(connection, run_id, self.mirroring, now=now)
        return self._open(run_id, is_owner=True)

    def resume(self, run_id: str) -> Run:
        """Take a run up again that was lost, failed or killed; its metrics go on.

        Raises:
            NotFound: there is none with this id.
            Conflict: it is running in a process that lives, or finished.
        """
        found = self.runs.get(run_id)
        if found.state in {"running", "finished"}:
            raise Conflict(f"Run {run_id!r} is {found.state}; only one that broke off is resumed")
        with self._database.write() as connection:
            now = database_now(connection, self._database)
            taken = connection.execute(
                update(run)
                .where(run.c.id == run_id, run.c.seen_at == found.seen_at)
                .values(
                    state="running",
                    exit_reason=None,
                    finished_at=None,
                    process=str(this_process()),
                    seen_at=now,
                )
            )
            if not taken.rowcount:
                raise Conflict(f"Run {run_id!r} was taken up by another process just now")
            enter(connection, run_id, self.mirroring, now=now)
        return self._open(run_id, is_owner=True)

    def join(self, run_id: str) -> Run:
        """Log to a run that another process started and will end, such as its first rank.

        Raises:
            NotFound: there is none with this id.
        """
        self.runs.get(run_id)
        return self._open(run_id, is_owner=False)

    def close(self) -> None:
        """Leave the mirrors as they are; runs are ended by their own blocks."""
        self.mirroring.close()

    def _open(self, run_id: str, *, is_owner: bool) -> Run:
        feed = Feed(run_id, Writer(self._database, run_id), capacity=self._recording.capacity)
        feed.buffer.continue_at({each.name: each.last_step for each in self.runs.series(run_id)})
        if is_owner:
            self.mirroring.follow(run_id)
        return Run(run_id, feed, self._around, is_owner=is_owner)

    @cached_property
    def _environment(self) -> Environment:
        return self._recording.environment()

    def _circumstances(self) -> dict[str, Any]:
        revision = read_revision(Path())
        command = hide_in_command([storable(word) for word in sys.orig_argv])
        return {
            "command": encode([cut(word) for word in command]),
            "environment": self._environment.described,
            "packages": self._environment.digest,
            "git_revision": revision.commit,
            "git_dirty": revision.dirty,
            "process": str(this_process()),
        }

    def _enter_packages(self, connection: Connection) -> None:
        digest = self._environment.digest
        known = select(package_set.c.digest).where(package_set.c.digest == digest)
        if connection.scalar(known) is not None:
            return
        try:
            with connection.begin_nested():
                connection.execute(
                    insert(package_set).values(
                        digest=digest, packages=list(self._environment.packages)
                    )
                )
        except IntegrityError:  # another process entered the same just now
            return


def _exists(connection: Connection, run_id: str) -> bool:
    return connection.scalar(select(run.c.id).where(run.c.id == run_id)) is not None

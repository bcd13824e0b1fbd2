"""What a job's function is handed: durable steps, sleep, progress, its log and its fence."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Literal, Protocol, TypeVar

from sqlalchemy import Connection, update

from infra.database.engine import Database
from infra.errors import InvalidRequest
from infra.jobs import lifecycle
from infra.jobs.definitions import Json
from infra.jobs.lifecycle import Claim
from infra.jobs.records import Level
from infra.jobs.tables import job

Reason = Literal["cancelled", "stopping", "superseded"]
PROGRESS_SECONDS = 0.5
"""Reports that follow one another more closely are kept back until the next one."""
Result = TypeVar("Result")


class Interrupted(BaseException):
    """The attempt must end now; let it pass, after cleaning up.

    Not an `Exception`, so that no handler for errors takes it for one.

    Attributes:
        reason: `cancelled` (somebody asked for it), `stopping` (the worker stops; the job goes on
            elsewhere) or `superseded` (another attempt is in force: publish nothing).
    """

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


class Steps(Protocol):
    """Remembers what each step of a job gave; `infra.jobs.workflows` is the durable one."""

    def run(self, name: str, function: Callable[[], Json]) -> Json:
        """Run a step, or return what it gave in an earlier attempt."""

    def run_transaction(self, name: str, write: Callable[[Connection], Json]) -> Json:
        """Run a step that is one write transaction; its record commits with it."""


class NoSteps:
    """The steps of a job that is registered without: there are none."""

    def run(self, name: str, function: Callable[[], Json]) -> Json:
        del function
        raise InvalidRequest(f"Step {name!r} of a job that is registered without steps")

    def run_transaction(self, name: str, write: Callable[[Connection], Json]) -> Json:
        del write
        raise InvalidRequest(f"Step {name!r} of a job that is registered without steps")


class Attempt:
    """One run of one job. Its methods belong to the thread that the job's function runs in.

    A job that is run again calls the same steps in the same order: those that were finished return
    what they gave then, without being run.
    """

    def __init__(
        self,
        database: Database,
        claim: Claim,
        *,
        steps: Steps,
        now: Callable[[], datetime],
    ) -> None:
        self.job_id = claim.job_id
        self.tenant = claim.tenant
        self.fence = claim.fence
        """The fencing token: larger than that of every attempt that began before, of any job."""
        self.claim = claim
        self._database = database
        self._steps = steps
        self._now = now
        self._interruption: Reason | None = None
        self._interrupted = threading.Event()
        self._reported_at = float("-inf")

    def step(self, name: str, function: Callable[[], Result]) -> Result:
        """Run a function and remember what it returns, which must be JSON.

        It runs at least once: a worker that dies after the effect and before the record runs it
        again. Make it idempotent, or use `transaction`. What it raises is raised here and not
        remembered.

        Raises:
            InvalidRequest: it returned something that JSON cannot hold.
            Conflict: an earlier attempt called another step at this point; the code has changed.
        """
        self.check()
        value: Result = self._steps.run(name, function)
        return value

    def transaction(self, name: str, write: Callable[[Connection], Result]) -> Result:
        """Run a step that writes to the database, exactly once.

        What it writes, the record that it ran, and the check that this attempt is in force commit
        together or not at all.
        """
        self.check()

        def guarded(connection: Connection) -> Result:
            self.guard(connection)
            return write(connection)

        value: Result = self._steps.run_transaction(name, guarded)
        return value

    def sleep(self, seconds: float, *, name: str = "sleep") -> None:
        """Wait until `seconds` after the first time this was reached, across restarts.

        The job keeps its resources meanwhile; for hours, start another job with `Options(at=...)`.
        """
        due = self.step(name, lambda: (self._now() + timedelta(seconds=seconds)).isoformat())
        self.wait((datetime.fromisoformat(due) - self._now()).total_seconds())

    def wait(self, seconds: float) -> None:
        """Wait, without remembering it, but no longer than until the attempt must end."""
        self._interrupted.wait(max(0.0, seconds))
        self.check()

    def check(self) -> None:
        """Raise `Interrupted` if the attempt must end; long steps call this now and then."""
        if self._interruption is not None:
            raise Interrupted(self._interruption)

    def guard(self, connection: Connection) -> None:
        """Make a write transaction of one's own fail unless this attempt is in force.

        Raises:
            Interrupted: it is not.
        """
        if not lifecycle.is_current(connection, self.claim):
            self.interrupt("superseded")
            self.check()

    def progress(self, fraction: float | None = None, message: str = "") -> None:
        """Say how far the job is, for others to read; at most every half second is written."""
        self.check()
        moment = time.monotonic()
        if moment - self._reported_at < PROGRESS_SECONDS and fraction != 1.0:
            return
        self._reported_at = moment
        with self._database.write(durable=False) as connection:
            told = connection.execute(
                update(job)
                .where(job.c.id == self.job_id, job.c.fence == self.fence)
                .values(
                    fraction=None if fraction is None else min(1.0, max(0.0, fraction)),
                    message=message[: lifecycle.MAX_MESSAGE_CHARACTERS],
                )
            )
        if not told.rowcount:
            self.interrupt("superseded")
            self.check()

    def log(self, message: str, *, level: Level = "info") -> None:
        """Append a line to the job's log."""
        with self._database.write() as connection:
            lifecycle.note(
                connection,
                self.job_id,
                message=message,
                now=self._now(),
                level=level,
                fence=self.fence,
            )

    def interrupt(self, reason: Reason) -> None:
        """Have the attempt end at its next step, wait or report; safe from any thread."""
        if self._interruption is None or reason == "superseded":
            self._interruption = reason
        self._interrupted.set()

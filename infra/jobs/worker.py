"""Runs jobs: in threads of the serving process, or as a process of its own."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from sqlalchemy import Connection

from infra.database.engine import Database
from infra.database.migrate import upgrade
from infra.errors import RagstoneError, StorageFailed
from infra.jobs import leases, lifecycle, retention
from infra.jobs.admission import LOCK, Capacity, Claimant, TenantLimits, claim
from infra.jobs.attempt import Attempt, Interrupted, NoSteps
from infra.jobs.definitions import Registry, Resources, plain
from infra.jobs.lifecycle import Claim
from infra.jobs.processes import this_process
from infra.jobs.queue import Jobs
from infra.jobs.workflows import Workflows
from infra.security import new_id

logger = logging.getLogger(__name__)

SLOTS = 4
SWEEP_SECONDS = 30.0
STORAGE_RETRY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Timing:
    poll_seconds: float = 0.5
    """How often the queue is looked at for what other processes put there."""
    beat_seconds: float = 1.0
    lease_seconds: float = 15.0
    """Silence after which the others take a worker for dead; where they can see that its process
    is gone, they do not wait."""
    orphan_seconds: float = 60.0
    """How long a job may wait while no worker has code for it."""
    retention: timedelta | None = timedelta(days=30)
    """How long finished jobs can be read; `None` keeps them."""


class Worker:
    """Takes jobs from the queue and runs each in a thread; one per process.

    Start it from a plain thread, not from within an event loop.

    Args:
        capacity: what it takes on at once; by default what the machine has, in four jobs.
        limits: how many jobs of one tenant run at once; the same for all workers of a queue.
        monotonic: the clock that leases go by.
        lazy: load DBOS with the first job that has steps, rather than at the start.
    """

    def __init__(
        self,
        jobs: Jobs,
        *,
        capacity: Capacity | None = None,
        limits: TenantLimits | None = None,
        timing: Timing = Timing(),
        monotonic: Callable[[], float] = time.monotonic,
        lazy: bool = False,
    ) -> None:
        self.id = new_id("worker-")
        self._jobs = jobs
        self._database = jobs.database
        self._timing = timing
        self._claimant = Claimant(
            self.id,
            names=tuple(jobs.registry.names),
            capacity=capacity or Capacity(Resources.of_this_machine(), SLOTS),
            limits=limits or TenantLimits(),
            forgetful=jobs.registry.forgetful,
            detached=jobs.registry.detached,
            widths=jobs.registry.widths,
        )
        self._lazy = lazy
        self._workflows = Workflows(self._database, worker_id=self.id, body=self._run)
        self._watch = leases.Watch(lease_seconds=timing.lease_seconds, monotonic=monotonic)
        self._orphans = leases.Orphans(grace_seconds=timing.orphan_seconds, monotonic=monotonic)
        self._dispatched: dict[str, Attempt] = {}
        self._running: dict[str, Attempt] = {}
        self._strays: set[int] = set()
        self._asked_at = self._swept_at = float("-inf")
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._stopped = threading.Event()
        self._unsubscribe: Callable[[], None] = lambda: None
        self._threads = [
            threading.Thread(target=self._take_jobs, name="jobs", daemon=True),
            threading.Thread(target=self._stay_alive, name="jobs-heartbeat", daemon=True),
        ]

    def start(self) -> None:
        """Begin to take jobs, those of dead workers among them.

        Raises:
            Conflict: this process has a worker already.
            MissingDependency: DBOS is not installed.
        """
        if not self._lazy:
            self._workflows.launch()
        now = self._jobs.now()
        with self._database.write(lock=LOCK) as connection:
            leases.register(connection, self._claimant, process=this_process(), now=now)
        self._unsubscribe = self._jobs.subscribe(self._wake.set)
        for thread in self._threads:
            thread.start()

    def stop(self, *, grace_seconds: float = 10.0) -> bool:
        """Take no more jobs and have those that run end at their next step; others go on there.

        Safe to call again, and where it was never started.

        Returns:
            Whether all of them ended in time. Where not, their threads live on until they reach
            a step, and can do no harm then: another attempt is in force.
        """
        if self._stopped.is_set() or not self._threads[0].is_alive():
            self._stopped.set()
            return True
        self._unsubscribe()
        self._stopping.set()
        self._wake.set()
        deadline = time.monotonic() + grace_seconds
        self._threads[0].join(grace_seconds)
        while self._running and time.monotonic() < deadline:
            for attempt in tuple(self._running.values()):
                attempt.interrupt("stopping")
            time.sleep(0.02)
        self._stopped.set()
        self._threads[1].join(grace_seconds)
        self._survive(self._leave)  # where it cannot, the others find it dead
        self._workflows.close()
        return not self._running

    @property
    def names(self) -> tuple[str, ...]:
        """Of the jobs it has code for."""
        return self._claimant.names

    @property
    def is_stopped(self) -> bool:
        return self._stopped.is_set()

    def _leave(self) -> None:
        with self._database.write(lock=LOCK) as connection:
            leases.leave(connection, self.id, now=self._jobs.now())
        self._workflows.forget_worker(self.id)  # DBOS would wait for storage without end

    def _take_jobs(self) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            for work in (self._admit, self._jobs.schedules.fire):
                self._survive(work)
            self._wake.wait(self._timing.poll_seconds)

    def _stay_alive(self) -> None:
        self._survive(partial(self._reap, []))
        while not self._stopped.wait(self._timing.beat_seconds):
            self._survive(self._beat)
            self._survive(self._give_up_orphans)
            self._survive(self._sweep)

    def _survive(self, work: Callable[[], object]) -> None:
        try:
            work()
        except StorageFailed as error:
            logger.warning("jobs wait for storage: %s", error)
            self._stopped.wait(STORAGE_RETRY_SECONDS)
        except Exception:
            # Whatever went wrong with one job or one round must not end the worker.
            logger.exception("worker %s goes on after an error", self.id)

    def _admit(self) -> None:
        for taken in claim(self._database, self._claimant, now=self._jobs.now()):
            remembers = taken.name not in self._claimant.forgetful
            steps = self._workflows if remembers else NoSteps()
            attempt = Attempt(self._database, taken, steps=steps, now=self._jobs.now)
            if taken.cancel_requested:
                attempt.interrupt("cancelled")
            self._running[taken.workflow_id] = self._dispatched[taken.workflow_id] = attempt
            if remembers:
                self._survive(partial(self._dispatch, attempt))
            else:
                name, where = f"job-{taken.name}", (taken.workflow_id,)
                threading.Thread(target=self._run, args=where, name=name, daemon=True).start()

    def _dispatch(self, attempt: Attempt) -> None:
        try:
            self._workflows.dispatch(attempt.claim)
        except StorageFailed:
            self._drop(attempt)  # and so a stray, which is put back
            raise
        except RagstoneError as error:
            logger.error("job %s cannot be run: %s", attempt.job_id, error)
            self._drop(attempt)
            self._fail(attempt.claim, error)

    def _run(self, workflow_id: str) -> bool:
        # Taken out, so that a thread that comes late does not enter the attempt of a later one.
        attempt = self._dispatched.pop(workflow_id, None)
        if attempt is None:
            return False
        try:
            return self._finish(attempt)
        finally:
            self._drop(attempt)
            self._wake.set()

    def _finish(self, attempt: Attempt) -> bool:
        held = attempt.claim
        definition = self._jobs.registry.get(held.name)
        try:
            if not definition.behaviour.detached:
                attempt.check()
            definition.check(held.arguments)
            value = definition.function(attempt, **held.arguments)
            result = plain(value, f"What job {held.name!r} returned")
        except Interrupted as interruption:
            end = lifecycle.cancel if interruption.reason == "cancelled" else lifecycle.release
            self._record(lambda connection: end(connection, held, now=self._jobs.now()))
            return False
        except (Exception, SystemExit) as error:
            logger.warning("job %s (%s) failed", held.job_id, held.name, exc_info=error)
            self._fail(held, error)
            return False
        return self._record(
            lambda connection: lifecycle.succeed(
                connection, held, result=result, now=self._jobs.now()
            )
        )

    def _fail(self, held: Claim, error: Exception | SystemExit) -> None:
        retries, now = self._jobs.registry.get(held.name).retries, self._jobs.now()
        self._record(
            lambda connection: lifecycle.fail(
                connection, held, error=error, retries=retries, now=now
            )
        )

    def _record(self, change: Callable[[Connection], bool]) -> bool:
        while True:
            try:
                with self._database.write() as connection:
                    return change(connection)
            except StorageFailed as error:
                logger.warning("a finished job waits for storage: %s", error)
                if self._stopped.wait(STORAGE_RETRY_SECONDS):
                    return False

    def _beat(self) -> None:
        running = tuple(self._running.values())  # read before the database: what it lacks is over
        now = self._jobs.now()
        with self._database.write(durable=False) as connection:
            if not leases.beat(connection, self.id, now=now):
                logger.warning("worker %s was taken for dead and starts over", self.id)
                leases.register(connection, self._claimant, process=this_process(), now=now)
            held = {each.fence: each for each in leases.held_by(connection, [self.id])}
            beats = leases.read_beats(connection)
        for attempt in running:
            self._follow(attempt, held.get(attempt.fence))
        self._release_strays(held, {attempt.fence for attempt in running})
        dead = self._watch.dead(each for each in beats if each.worker_id != self.id)
        if dead:
            self._reap(dead)

    def _follow(self, attempt: Attempt, held: Claim | None) -> None:
        if held is None:
            attempt.interrupt("superseded")
            self._drop(attempt)
        elif held.cancel_requested:
            attempt.interrupt("cancelled")

    def _release_strays(self, held: dict[int, Claim], running: set[int]) -> None:
        """Put back what the database has this worker run, and it does not, twice in a row."""
        strays = set(held) - running
        for fence in strays & self._strays:
            logger.warning("job %s is put back: it was not running", held[fence].job_id)
            self._record(partial(lifecycle.release, claim=held[fence], now=self._jobs.now()))
        self._strays = strays

    def _reap(self, dead: list[leases.Beat]) -> None:
        with self._database.write(lock=LOCK) as connection:
            lost = leases.reap(connection, dead, registry=self._jobs.registry, now=self._jobs.now())
        for each in dead:
            logger.warning("worker %s is dead", each.worker_id)
            self._workflows.forget_worker(each.worker_id)
        if lost:
            self._wake.set()

    def _give_up_orphans(self) -> None:
        if time.monotonic() - self._asked_at < self._timing.orphan_seconds / 10:
            return
        self._asked_at = time.monotonic()
        with self._database.read() as connection:
            orphans = self._orphans.names(connection)
        for name in orphans:
            with self._database.write() as connection:
                count = leases.give_up(connection, name, now=self._jobs.now())
            logger.error("no code for job %r: %d given up", name, count)

    def _sweep(self) -> None:
        if time.monotonic() - self._swept_at < SWEEP_SECONDS:
            return
        self._swept_at = time.monotonic()
        retention.sweep(
            self._database,
            forget=self._workflows.forget,
            now=self._jobs.now(),
            keep=self._timing.retention,
        )

    def _drop(self, attempt: Attempt) -> None:
        for attempts in (self._running, self._dispatched):
            if attempts.get(attempt.claim.workflow_id) is attempt:
                del attempts[attempt.claim.workflow_id]


def run_worker(
    database_url: str,
    registry: Registry,
    *,
    capacity: Capacity | None = None,
    limits: TenantLimits | None = None,
    timing: Timing = Timing(),
) -> None:
    """Run the jobs of a registry in this process, as `run_until_asked` does."""
    database = Database(database_url)
    upgrade(database)
    worker = Worker(Jobs(database, registry), capacity=capacity, limits=limits, timing=timing)
    run_until_asked(worker, close=database.close)


def run_until_asked(worker: Worker, *, close: Callable[[], object]) -> None:
    """Run jobs in this process, from its main thread, until SIGTERM or SIGINT; then `close`.

    A job that does not end in time is cut off with the process, and goes on elsewhere.
    """
    asked = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: asked.set())
    worker.start()
    logger.info("worker %s runs jobs: %s", worker.id, ", ".join(worker.names))
    asked.wait()
    in_order = worker.stop()
    close()
    if not in_order:
        logger.warning("worker %s leaves jobs behind that did not end in time", worker.id)
        os._exit(1)  # a thread cannot be killed, and would keep the process

"""Runs jobs as DBOS workflows, which remember the steps; the one place that knows DBOS."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event

from infra.database.engine import BUSY_SECONDS, Database
from infra.errors import Conflict, InvalidRequest
from infra.jobs.attempt import Interrupted
from infra.jobs.definitions import Json, plain
from infra.jobs.lifecycle import Claim
from infra.plugins import require

APPLICATION = "ragstone"
# DBOS runs a workflow only under the version that began it. Ours never changes, so that a deploy
# strands nothing; a step that no longer matches is found when it is reached.
APPLICATION_VERSION = "1"
QUEUE_POLL_SECONDS = 0.25
Result = TypeVar("Result")


class Workflows:
    """DBOS in this process, of which there can be one at a time.

    DBOS keeps what every step gave and lets only the owner of a workflow add to it. It has no
    heartbeats: who runs what is decided by `infra.jobs.leases` and carried out here.

    Args:
        worker_id: also the name of the DBOS queue through which this process resumes what others
            began.
        body: called with a workflow's id, in a thread of DBOS, for each run of it; returns whether
            the workflow is finished, rather than to be run again.
    """

    def __init__(self, database: Database, *, worker_id: str, body: Callable[[str], bool]) -> None:
        self._database = database
        self._queue = worker_id
        self._body = body
        self._launching = threading.Lock()
        self._is_launched = False
        self._dbos: Any = None
        self._engine: Engine | None = None
        self._isolation = "SERIALIZABLE" if database.is_sqlite else "READ COMMITTED"

    def launch(self) -> None:
        """Load DBOS, create its tables where they are missing, and start its threads; once.

        Raises:
            Conflict: this process has one already.
            MissingDependency: DBOS is not installed.
        """
        with self._launching:
            if not self._is_launched:
                self._launch()
                self._is_launched = True

    def _launch(self) -> None:
        self._dbos = require("dbos", extra="jobs")
        self._engine = _sqlite_engine(self._database.url) if self._database.is_sqlite else None
        # With a handler of ours in place, DBOS adds none and leaves the messages to us.
        logging.getLogger("dbos").addHandler(logging.NullHandler())
        dbos = self._dbos.DBOS
        dbos(
            config={
                "name": APPLICATION,
                "application_version": APPLICATION_VERSION,
                "executor_id": self._queue,
                "system_database_url": self._database.url,
                "system_database_engine": self._engine,
                "sys_db_pool_size": 8,
                "serializer": _JsonText(),
                "use_listen_notify": False,
                "enable_otlp": False,
                "log_level": "WARNING",
            }
        )
        try:
            dbos.listen_queues([self._queue])
        except self._dbos.error.DBOSException:
            raise Conflict("A worker runs in this process already; use that one") from None
        try:
            self._start(dbos)
        except Exception:
            dbos.destroy(destroy_registry=True)
            raise

    def _start(self, dbos: Any) -> None:
        self._workflow = dbos.workflow(name="ragstone.job", max_recovery_attempts=None)(
            lambda workflow_id: self._run(workflow_id)  # DBOS marks it, and a method cannot be
        )
        self._datasource = self._dbos.SQLAlchemyDatasource.create(
            self._database.url,
            engine=self._database.engine.execution_options(ragstone_write=True),
            serializer=_JsonText(),
        )
        dbos.launch()
        dbos.register_queue(
            self._queue, polling_interval_sec=QUEUE_POLL_SECONDS, on_conflict="always_update"
        )

    def dispatch(self, claim: Claim) -> None:
        """Have the body run the workflow of a claim: from the start, or from its last step on."""
        self.launch()
        dbos = self._dbos.DBOS
        status = dbos.get_workflow_status(claim.workflow_id) if claim.has_steps else None
        if status is not None and status.status in {"SUCCESS", "ERROR"}:
            dbos.delete_workflow(claim.workflow_id)
            status = None
        if status is None:
            with self._dbos.SetWorkflowID(claim.workflow_id):
                dbos.start_workflow(self._workflow, claim.workflow_id)
        else:
            dbos.resume_workflow(claim.workflow_id, queue_name=self._queue)

    def _run(self, workflow_id: str) -> None:
        if not self._body(workflow_id):
            raise _Unfinished(workflow_id)

    def run(self, name: str, function: Callable[[], Result]) -> Result:
        """Run a step of the workflow whose body this thread is in, or return what it gave before.

        Raises:
            Interrupted: another attempt owns the workflow.
            Conflict: another step was recorded at this point.
            InvalidRequest: called from elsewhere, or the value is not JSON.
        """
        return self._remembered(
            name, function, lambda body: self._dbos.DBOS.run_step({"name": name}, body)
        )

    def run_transaction(self, name: str, write: Callable[[Connection], Result]) -> Result:
        """Run a step that is one write transaction, committed together with its record."""

        def within() -> Result:
            return write(self._datasource.sql_session().connection())

        options = {"name": name, "isolation_level": self._isolation}
        return self._remembered(
            name, within, lambda body: self._datasource.run_tx_step(options, body)
        )

    def forget(self, workflow_ids: Sequence[str]) -> None:
        """Drop the records of steps of workflows that will not be run again."""
        if not workflow_ids:
            return
        self.launch()
        self._dbos.DBOS.delete_workflows(list(workflow_ids))

    def forget_worker(self, worker_id: str) -> None:
        """Drop the queue of a worker that resumes nothing any more."""
        if self._is_launched:
            self._dbos.DBOS.delete_queue(worker_id)

    def close(self) -> None:
        """Stop DBOS; bodies that still run find it gone at their next step."""
        if not self._is_launched:
            return
        self._dbos.DBOS.destroy(destroy_registry=True)
        if self._engine is not None:
            self._engine.dispose()

    def _remembered(
        self, name: str, function: Callable[[], Result], run: Callable[[Callable[[], Any]], Json]
    ) -> Result:
        errors = self._dbos.error
        dbos = self._dbos.DBOS
        if dbos.workflow_id is None or dbos.step_id is not None:
            where = "within another step" if dbos.workflow_id else "outside the thread of its job"
            raise InvalidRequest(
                f"Step {name!r} was called {where}, where it could not be remembered; call it from "
                "the job's function itself"
            )

        def body() -> Json:
            # DBOS would record an Exception as the outcome of the step and raise it for ever.
            try:
                return plain(function(), f"What step {name!r} returned")
            except Exception as error:
                raise _Raised(error) from error

        try:
            value: Result = run(body)
        except _Raised as raised:
            failure = raised.error
        except errors.DBOSWorkflowConflictIDError:
            raise Interrupted("superseded") from None
        except errors.DBOSWorkflowCancelledError:
            raise Interrupted("cancelled") from None
        except errors.DBOSUnexpectedStepError as error:
            raise Conflict(
                f"Step {name!r} is not what an earlier attempt ran at this point ({error}); the "
                "code has changed: requeue the job from scratch"
            ) from None
        else:
            return value
        raise failure


class _Raised(BaseException):
    """Carries an error of a step past DBOS."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


class _Unfinished(BaseException):
    """Ends a run without an outcome: DBOS, which records an Exception as one, lets this pass."""


class _JsonText:
    """How DBOS stores values: its own default is pickle, and reading that runs code."""

    def name(self) -> str:
        return "ragstone_json"

    def serialize(self, data: Any) -> str:
        return json.dumps(data, default=repr)

    def deserialize(self, serialized_data: str) -> Any:
        return json.loads(serialized_data)


def _sqlite_engine(url: str) -> Engine:
    """Open DBOS's own tables: as careful with the file as ours, begun as DBOS expects it."""
    engine = create_engine(
        url, connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False}, pool_size=8
    )

    def prepare(connection: Any, _record: Any) -> None:
        connection.isolation_level = "IMMEDIATE"
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute("PRAGMA secure_delete=ON")

    event.listen(engine, "connect", prepare)
    return engine

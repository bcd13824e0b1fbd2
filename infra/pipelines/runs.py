"""Runs of pipelines in the database: made, taken up step by step, ended, found again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, insert, select, update
from sqlalchemy.exc import IntegrityError

from infra.artifacts import leases
from infra.database.engine import Database
from infra.errors import Conflict, NotFound
from infra.jobs.processes import this_process
from infra.pipelines.definition import Pipeline
from infra.pipelines.graph import build
from infra.pipelines.records import (
    OPEN,
    PASSED,
    Fixed,
    Made,
    Mode,
    Pin,
    Run,
    StepRecord,
    read_fixed,
    read_run,
    read_step,
    write_pins,
)
from infra.pipelines.tables import pipeline_run, pipeline_step
from infra.security import new_id

LOCK = leases.LOCK
"""Held by whoever ends a step: its outputs become versions in the same transaction."""
LISTED = 100
REMEMBERED = 32
"""Runs whose definition is kept in memory."""
RUN_COLUMNS = tuple(
    column for column in pipeline_run.c if column.name not in {"definition", "pins"}
)
STEP_COLUMNS = tuple(column for column in pipeline_step.c if column.name != "parts")


def utc_now() -> datetime:
    return datetime.now(UTC)


class Runs:
    """The runs of one database; safe to share between threads and processes."""

    def __init__(self, database: Database, *, now: Callable[[], datetime] = utc_now) -> None:
        self.database = database
        self.now = now
        self._fixed: dict[str, Fixed] = {}

    def create(
        self,
        pipeline: Pipeline,
        pins: Mapping[str, Pin],
        *,
        mode: Mode,
        snapshot: str | None = None,
        force: bool = False,
        key: str | None = None,
    ) -> Run:
        """Enter a run with all its steps; steps without a pin are left out of it.

        Args:
            pipeline: as it was read.
            pins: what its steps are tied to, by name.
            mode: who takes up its steps.
            snapshot: the artifact with its files.
            force: steps run even if nothing changed.
            key: what somebody else calls this run; used again, it returns the first.
        """
        row = {
            "id": new_id("prun_"),
            "pipeline": pipeline.name,
            "key": key,
            "mode": mode,
            "state": "running",
            "definition": pipeline.model_dump(mode="json", by_alias=True),
            "pins": write_pins(pins),
            "snapshot": snapshot,
            "force": force,
            "process": str(this_process()) if mode == "foreground" else None,
            "created_at": self.now(),
        }
        try:
            with self.database.write() as connection:
                connection.execute(insert(pipeline_run).values(**row))
                for name in build(pipeline).order:
                    connection.execute(insert(pipeline_step).values(**_new_step(row, name, pins)))
        except IntegrityError:
            return self.by_key(pipeline.name, key or "")
        return self.get(str(row["id"]))

    def get(self, run_id: str) -> Run:
        """Return a run.

        Raises:
            NotFound: there is none with this id.
        """
        with self.database.read() as connection:
            return self.load(connection, run_id)

    def load(self, connection: Connection, run_id: str) -> Run:
        """Return a run as a transaction sees it. Raises as `get` does."""
        row = connection.execute(
            select(*RUN_COLUMNS).where(pipeline_run.c.id == run_id)
        ).one_or_none()
        if row is None:
            recent = select(pipeline_run.c.id).order_by(pipeline_run.c.number.desc()).limit(LISTED)
            raise NotFound("run", run_id, among=connection.scalars(recent))
        steps = connection.execute(
            select(*STEP_COLUMNS)
            .where(pipeline_step.c.run_id == run_id)
            .order_by(pipeline_step.c.id)
        )
        return read_run(row, self._fixed_of(connection, run_id), list(steps))

    def _fixed_of(self, connection: Connection, run_id: str) -> Fixed:
        """Return what a run began with: read once, as every step looks at it several times."""
        found = self._fixed.get(run_id)
        if found is None:
            # A list: of two typed columns, a row would be of another type than of any others.
            columns = [pipeline_run.c.definition, pipeline_run.c.pins]
            row = connection.execute(select(*columns).where(pipeline_run.c.id == run_id)).one()
            found = read_fixed(row)
            if len(self._fixed) >= REMEMBERED:
                self._fixed.clear()
            self._fixed[run_id] = found
        return found

    def by_key(self, pipeline: str, key: str) -> Run:
        """Return the run that somebody else calls `key`.

        Raises:
            NotFound: there is none.
        """
        with self.database.read() as connection:
            run_id = connection.scalar(
                select(pipeline_run.c.id).where(
                    pipeline_run.c.pipeline == pipeline, pipeline_run.c.key == key
                )
            )
            if run_id is None:
                raise NotFound("run", key)
            return self.load(connection, run_id)

    def list(self, *, pipeline: str | None = None, limit: int = 20) -> Sequence[Run]:
        """Return runs, newest first."""
        query = select(pipeline_run.c.id).order_by(pipeline_run.c.number.desc()).limit(limit)
        if pipeline is not None:
            query = query.where(pipeline_run.c.pipeline == pipeline)
        with self.database.read() as connection:
            return [self.load(connection, run_id) for run_id in connection.scalars(query).all()]

    def last(self, pipeline: str, step: str) -> StepRecord | None:
        """Return how a step came out when it last succeeded, or was found to have."""
        with self.database.read() as connection:
            row = connection.execute(
                select(pipeline_step)
                .where(
                    pipeline_step.c.pipeline == pipeline,
                    pipeline_step.c.name == step,
                    pipeline_step.c.state.in_(("succeeded", "cached")),
                )
                .order_by(pipeline_step.c.id.desc())
                .limit(1)
            ).one_or_none()
        return read_step(row) if row else None

    def take_up(self, run_id: str, name: str) -> StepRecord:
        """Begin a step, or go on with it; whoever had it before may write no more.

        A step that is finished is returned as it is; but where a scheduler outside decides what is
        tried again, one that failed begins anew.

        Raises:
            Conflict: it needs steps that have not succeeded.
        """
        with self.database.write(lock=LOCK) as connection:
            run = self.load(connection, run_id)
            step = _step(run, name)
            if step.is_finished and (run.mode != "external" or step.state in PASSED):
                return step
            missing = [
                each for each in run.graph.needs[name] if run.steps[each].state not in PASSED
            ]
            if missing:
                raise Conflict(
                    f"Step {name!r} of run {run_id!r} needs {', '.join(map(repr, missing))} "
                    "to succeed first"
                )
            if step.is_finished:
                _reopen(connection, run, name)
            row = connection.execute(
                update(pipeline_step)
                .where(pipeline_step.c.run_id == run_id, pipeline_step.c.name == name)
                .values(
                    state="running",
                    fence=pipeline_step.c.fence + 1,
                    started_at=step.started_at or self.now(),
                )
                .returning(pipeline_step)
            ).one()
            return read_step(row)

    def note(self, connection: Connection, held: StepRecord, **values: Any) -> None:
        """Change a step that this caller took up.

        Raises:
            Conflict: somebody else has taken it up meanwhile.
        """
        changed = connection.execute(
            update(pipeline_step)
            .where(
                pipeline_step.c.run_id == held.run_id,
                pipeline_step.c.name == held.name,
                pipeline_step.c.fence == held.fence,
                pipeline_step.c.state.in_(OPEN),
            )
            .values(**values)
        )
        if not changed.rowcount:
            raise Conflict(
                f"Step {held.name!r} of run {held.run_id!r} was taken up by another process, or "
                "cancelled; nothing of this attempt is kept"
            )

    def end(self, connection: Connection, held: StepRecord, **values: Any) -> Run:
        """Enter how a step came out, in a transaction begun with `lock=LOCK`.

        Steps that needed one that failed are blocked; a run without open steps ends.
        """
        self.note(connection, held, finished_at=self.now(), **values)
        return self.settle(connection, held.run_id)

    def settle(self, connection: Connection, run_id: str) -> Run:
        """Block what cannot run any more, and end a run of which nothing is open."""
        run = self.load(connection, run_id)
        stuck = {name for name, step in run.steps.items() if step.state not in (*OPEN, *PASSED)}
        blocked = {
            each
            for name in stuck
            for each in run.graph.dependants(name)
            if run.steps[each].state == "waiting"
        }
        for name in blocked:
            causes = [each for each in run.graph.needs[name] if each in stuck | blocked]
            connection.execute(
                update(pipeline_step)
                .where(pipeline_step.c.run_id == run_id, pipeline_step.c.name == name)
                .values(state="blocked", reason=f"needs {', '.join(causes)}")
            )
        run = self.load(connection, run_id) if blocked else run
        states = {step.state for step in run.steps.values()}
        if run.is_finished or states & set(OPEN):
            return run
        outcome = "cancelled" if "cancelled" in states else "succeeded"
        outcome = "failed" if "failed" in states else outcome
        connection.execute(
            update(pipeline_run)
            .where(pipeline_run.c.id == run_id)
            .values(state=outcome, finished_at=self.now())
        )
        return self.load(connection, run_id)

    def queue(self, connection: Connection, run_id: str, *, jobs: Mapping[str, str]) -> None:
        """Enter that steps wait for a worker, by name the id of their job."""
        for name, job_id in jobs.items():
            connection.execute(
                update(pipeline_step)
                .where(
                    pipeline_step.c.run_id == run_id,
                    pipeline_step.c.name == name,
                    pipeline_step.c.state == "waiting",
                )
                .values(state="queued", job_id=job_id)
            )

    def cancel(self, run_id: str, *, reason: str) -> Run:
        """End what is open of a run; whoever runs a step of it can publish nothing any more."""
        with self.database.write(lock=LOCK) as connection:
            connection.execute(
                update(pipeline_step)
                .where(pipeline_step.c.run_id == run_id, pipeline_step.c.state.in_(OPEN))
                .values(state="cancelled", error=reason, finished_at=self.now())
            )
            return self.settle(connection, run_id)


def cached(connection: Connection, key: str) -> StepRecord | None:
    """Return the newest success with this key, of any run."""
    row = connection.execute(
        select(pipeline_step)
        .where(pipeline_step.c.key == key, pipeline_step.c.state == "succeeded")
        .order_by(pipeline_step.c.id.desc())
        .limit(1)
    ).one_or_none()
    return read_step(row) if row else None


def outputs_as_json(outputs: Mapping[str, Made]) -> dict[str, Any]:
    return {name: asdict(made) for name, made in outputs.items()}


def _reopen(connection: Connection, run: Run, name: str) -> None:
    connection.execute(
        update(pipeline_run)
        .where(pipeline_run.c.id == run.id)
        .values(state="running", finished_at=None)
    )
    for each in {name, *run.graph.dependants(name)}:
        if run.steps[each].state not in PASSED:
            connection.execute(
                update(pipeline_step)
                .where(pipeline_step.c.run_id == run.id, pipeline_step.c.name == each)
                .values(
                    state="waiting", reason="", error=None, finished_at=None, failures=0, work=None
                )
            )


def _new_step(run: Mapping[str, Any], name: str, pins: Mapping[str, Pin]) -> dict[str, Any]:
    chosen = name in pins
    return {
        "run_id": run["id"],
        "pipeline": run["pipeline"],
        "name": name,
        "state": "waiting" if chosen else "skipped",
        "reason": "" if chosen else "not asked for",
    }


def _step(run: Run, name: str) -> StepRecord:
    if name not in run.steps:
        raise NotFound("step", name, among=run.steps)
    return run.steps[name]

"""Runs one step: from the cache, or as a program whose outputs appear in one transaction."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import Connection

from infra.artifacts import refs
from infra.artifacts.publishing import Made as Origin
from infra.artifacts.publishing import is_kept
from infra.artifacts.refs import Reference
from infra.artifacts.store import ArtifactStore, Staged
from infra.errors import Conflict, InvalidRequest, NotFound, RagstoneError
from infra.jobs import external
from infra.jobs.attempt import Interrupted
from infra.jobs.external import External, ProcessVanished
from infra.pipelines import keys, runs
from infra.pipelines.definition import Step
from infra.pipelines.describing import describe
from infra.pipelines.records import Made, Run, StepRecord
from infra.pipelines.runs import LOCK, Runs
from infra.pipelines.workplace import (
    StepFailed,
    Surroundings,
    Workplace,
    exact,
    outcome,
    project,
)
from infra.security import new_id

POLL_SECONDS = 0.05
MAX_POLL_SECONDS = 1.0
GRACE_SECONDS = 10.0
ABANDONED_SECONDS = 1.0
MAX_DELAY_SECONDS = 3600.0
LOG_TAIL_CHARACTERS = 2_000
LOST_TRIES = 2
"""How often a program that vanished, as with its machine, is started again without a retry."""


class Control(Protocol):
    """Says when a step must end; an `Attempt` of a job is one."""

    def wait(self, seconds: float) -> None:
        """Wait, or raise `Interrupted`."""

    def guard(self, connection: Connection) -> None:
        """Make a transaction fail whose writer may not publish any more."""


@dataclass(frozen=True, slots=True)
class Executor:
    """Runs steps; safe to share between threads."""

    store: ArtifactStore
    runs: Runs
    around: Surroundings
    ended: Callable[[Connection, Run], None] | None = None
    """Called in the transaction that ends a step, to start those that are ready then."""

    def execute(self, run_id: str, name: str, control: Control) -> StepRecord:
        """Bring a step to its end, and return how it came out; safe to call again at any time.

        What fails is recorded and returned. A step that is finished is returned as it is.

        Raises:
            Interrupted: it must end; a program that is to go on later is left running.
            Conflict: another process has taken the step up.
        """
        held = self.runs.take_up(run_id, name)
        if held.is_finished:
            return held
        run = self.runs.get(run_id)
        try:
            self._run(run, held, control)
        except (StepFailed, InvalidRequest, NotFound) as error:
            self._end(held, control, state="failed", error=error.message)
        except Interrupted as interruption:
            if interruption.reason == "cancelled":
                with suppress(Conflict):  # the whole run was, and has said so
                    self._end(held, control, state="cancelled", error="cancelled")
            raise
        return self.runs.get(run_id).steps[name]

    def abandon(self, run_id: str, name: str) -> None:
        """End the program that a process left running when it died, if there is one here."""
        work = self.runs.get(run_id).steps[name].work
        if work is not None:
            place = Workplace(self.around.folder / run_id / name / work)
            with suppress(RagstoneError, OSError):  # it may have ended, or run elsewhere
                external.attach(place.state).cancel(grace_seconds=ABANDONED_SECONDS)

    def _run(self, run: Run, held: StepRecord, control: Control) -> None:
        step, pin = run.pipeline.steps[held.name], run.pins[held.name]
        inputs = run.inputs(held.name)
        parts = keys.parts(step, inputs, sources=pin.sources, environment=self.around.variables)
        names = {local: made.reference for local, made in inputs.items()} | step.local_names
        key = keys.key(parts)
        why = reason(self.runs.last(run.pipeline.name, held.name), parts, names=names)
        with self.runs.database.write(lock=LOCK) as connection:
            control.guard(connection)
            self.runs.note(connection, held, key=key, parts=parts, inputs=names, reason=why)
            if not run.force and self._adopt(connection, held, key):
                return
        if run.force:
            with self.runs.database.write() as connection:
                self.runs.note(connection, held, reason=f"forced; {why}" if why else "forced")
        while True:
            try:
                self._try(run, held, key=key, control=control)
            except (StepFailed, ProcessVanished) as error:
                held = self._failed(step, held, control, error=error)
            else:
                return

    def _adopt(self, connection: Connection, held: StepRecord, key: str) -> bool:
        """End a step with what an earlier one with the same key made, if that is still there."""
        found = runs.cached(connection, key)
        if found is None or not all(
            is_kept(connection, made.digest) for made in found.outputs.values()
        ):
            return False
        outputs = {
            local: self._newest(connection, made, run_id=held.run_id)
            for local, made in found.outputs.items()
        }
        run = self.runs.end(
            connection,
            held,
            state="cached",
            reason="nothing changed",
            outputs=runs.outputs_as_json(outputs),
            result=found.result,
        )
        self._tell(connection, run)
        return True

    def _newest(self, connection: Connection, made: Made, *, run_id: str) -> Made:
        """Make an output the newest version again, if another one took its place meanwhile."""
        kind, name = refs.split(made.reference.partition("@")[0])
        wanted = Reference(kind, name, made.digest)
        found = refs.add_version(connection, wanted, now=self.runs.now(), job=f"pipeline {run_id}")
        return Made(str(found), made.digest, made.content)

    def _try(self, run: Run, held: StepRecord, *, key: str, control: Control) -> None:
        step = run.pipeline.steps[held.name]
        place = self._place(run, held, control)
        program = external.launch(
            place.command(run, held.name, around=self.around), state=place.state
        )
        self._await(program, step, control)
        places = place.left(step)
        parents = [(local, exact(made)) for local, made in run.inputs(held.name).items()]
        try:
            origins = {
                output.artifact: Origin(
                    describe(places[output.artifact], output),
                    parents=parents,
                    job=f"pipeline {run.id} {held.name}",
                )
                for output in step.outputs.values()
            }
            with self.store.staged(places, origins) as staged:
                self._publish(run, held, key=key, staged=staged, control=control, place=place)
        except RagstoneError as error:
            raise outcome(error) from error
        place.clear()

    def _publish(
        self,
        run: Run,
        held: StepRecord,
        *,
        key: str,
        staged: Staged,
        control: Control,
        place: Workplace,
    ) -> None:
        result = place.result()
        with self.runs.database.write(lock=LOCK) as connection:
            control.guard(connection)
            # Another run may have made the same meanwhile: then there is one version of it.
            if not run.force and self._adopt(connection, held, key):
                return
            made = staged.enter(connection)
            outputs = {
                local: Made(
                    str(made[output.artifact]),
                    made[output.artifact].digest,
                    keys.content(staged.stored[output.artifact].manifest),
                )
                for local, output in run.pipeline.steps[held.name].outputs.items()
            }
            ended = self.runs.end(
                connection,
                held,
                state="succeeded",
                outputs=runs.outputs_as_json(outputs),
                result=result,
                error=None,
            )
            self._tell(connection, ended)

    def _place(self, run: Run, held: StepRecord, control: Control) -> Workplace:
        """Return the folder of this try: laid out by an earlier attempt, or now."""
        folder = self.around.folder / run.id / held.name
        step = self.runs.get(run.id).steps[held.name]
        if step.work is not None and (folder / step.work).is_dir():
            return Workplace(folder / step.work)
        place = Workplace(folder / new_id("try-"))
        try:
            place.lay_out(
                self.store,
                run,
                name=held.name,
                project=project(self.store, run, around=self.around),
            )
            with self.runs.database.write() as connection:
                control.guard(connection)
                self.runs.note(connection, held, work=place.folder.name)
        except BaseException:
            shutil.rmtree(place.folder, ignore_errors=True)
            raise
        return place

    def _await(self, program: External, step: Step, control: Control) -> None:
        """Wait until a program has ended well; it is ended if it takes too long."""
        pause = POLL_SECONDS
        began = (program.state / "process").stat().st_mtime
        try:
            while (code := _exit_code(program)) is None:
                control.wait(pause)
                pause = min(MAX_POLL_SECONDS, pause * 1.2)
                if step.timeout is not None and time.time() - began > step.timeout:
                    program.cancel(grace_seconds=GRACE_SECONDS)
                    raise StepFailed(f"it took longer than {step.timeout:g} s{_said(program)}")
        except Interrupted as interruption:
            if interruption.reason == "cancelled":
                program.cancel(grace_seconds=GRACE_SECONDS)
            raise
        if program.members():
            program.cancel(grace_seconds=0)  # what it left running could still write
        if code:
            raise StepFailed(f"it ended with exit code {code}{_said(program)}")

    def _failed(
        self, step: Step, held: StepRecord, control: Control, *, error: RagstoneError
    ) -> StepRecord:
        """Count a failure and wait for the next try, if there is one."""
        failures = self.runs.get(held.run_id).steps[held.name].failures
        lost = isinstance(error, ProcessVanished)
        allowed = step.retries + (LOST_TRIES if lost else 0)
        with self.runs.database.write() as connection:
            control.guard(connection)
            self.runs.note(connection, held, failures=failures + 1, error=error.message, work=None)
        if failures >= allowed:
            raise StepFailed(error.message)
        control.wait(0 if lost else min(MAX_DELAY_SECONDS, step.retry_delay * 2**failures))
        return held

    def _end(self, held: StepRecord, control: Control, **values: Any) -> None:
        with self.runs.database.write(lock=LOCK) as connection:
            control.guard(connection)
            self._tell(connection, self.runs.end(connection, held, **values))

    def _tell(self, connection: Connection, run: Run) -> None:
        if self.ended is not None:
            self.ended(connection, run)


def reason(last: StepRecord | None, parts: Mapping[str, Any], *, names: Mapping[str, str]) -> str:
    """Say why a step runs, by what is different from when it last succeeded."""
    if last is None or last.parts is None:
        return "has not run before"
    found = keys.changes(last.parts, parts, names=(last.inputs, names))
    return "; ".join(found)


def output_of(around: Surroundings, run: Run, name: str) -> Path:
    """Return the file with what a step's program said last.

    Raises:
        NotFound: there is no such step.
        Conflict: it has run no program, or its folder was removed.
    """
    if name not in run.steps:
        raise NotFound("step", name, among=run.steps)
    found = sorted(
        (around.folder / run.id / name).glob("try-*/state/output.log"),
        key=lambda path: path.stat().st_mtime,
    )
    if not found:
        raise Conflict(
            f"Step {name!r} of run {run.id!r} left no words here: it ran no program, or ran on "
            "another machine, or its folder was removed"
        )
    return found[-1]


def _exit_code(program: External) -> int | None:
    try:
        return program.exit_code()
    except ProcessVanished:
        raise
    except Conflict as error:
        # It was launched on another machine, whose worker no longer has the step: whether it runs
        # or not, it can publish nothing.
        raise ProcessVanished(error.message) from error


def _said(program: External) -> str:
    try:
        text = program.output.read_text(encoding="utf-8", errors="replace").strip()
    except FileNotFoundError:
        text = ""
    return f"; its last words:\n{text[-LOG_TAIL_CHARACTERS:]}" if text else "; it said nothing"
